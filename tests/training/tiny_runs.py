"""Trainings of the miniature on random batches, without files."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from xkd.params import load, recipe
from xkd.training.build import build_networks
from xkd.training.pretraining import pretrainer
from xkd.training.recorder import STEP_TIMES

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
CLASSES = ("one", "two")


@dataclass
class Batch:
    ids: list
    labels: torch.Tensor
    views: dict


class StubLoader:
    """Two random batches an epoch, the same for the same epoch; one may be poisoned."""

    classes = CLASSES

    def __init__(self, recipe, poisoned_step=None):
        self.views, self.mels = recipe.views, recipe.logmel.n_mels
        self.poisoned_step, self.epoch, self.first = poisoned_step, 0, 0

    def __len__(self):
        return 2

    def close(self):
        pass

    def set_epoch(self, epoch, first=0):
        self.epoch, self.first = epoch, first

    def __iter__(self):
        for index in range(self.first, 2):
            generator = torch.Generator().manual_seed(10 * self.epoch + index)
            video = [
                torch.randn(4, 3, v.frames, v.size, v.size, generator=generator)
                for v in (self.views.video_global, self.views.video_local)
            ]
            audio = [
                torch.randn(4, 1, self.mels, v.frames, generator=generator)
                for v in (self.views.audio_global, self.views.audio_local)
            ]
            if self.epoch * 2 + index == self.poisoned_step:
                audio[0][2, 0, 0, 0] = float("nan")
            labels = torch.tensor([0, 1, 0, 1])
            for view in (video[0], audio[0]):
                view[labels == 1] += 1.0
            ids = [f"clip{self.epoch}{index}{n}" for n in range(4)]
            yield Batch(ids, labels, {"video": video, "audio": audio})


def settings(ablation="xkd", **training):
    params = load(MINIATURE)
    chosen = recipe(params, ablation)
    return chosen.model_copy(
        update={"training": chosen.training.model_copy(update={"epochs": 3, "checkpoint_epochs": 1, **training})}
    )


def trainer(chosen, seed=0, **loader):
    return pretrainer(chosen, build_networks(chosen, seed), StubLoader(chosen, **loader), seed)


def train(one, stop_after=None, save=lambda state: None):
    for done, _ in enumerate(one.epochs(save), start=1):
        if done == stop_after:
            break
    return one


def same(first, second):
    states = first.learner.objective.state_dict(), second.learner.objective.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def curves(one):
    return pd.DataFrame(one.recorder.steps).drop(columns=list(STEP_TIMES))
