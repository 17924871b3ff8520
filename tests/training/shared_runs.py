"""Trainings in float64 whose batches are shared by processes or cut into parts."""

import time

import pandas as pd
import pytest
import torch
from tiny_runs import Batch

from xkd.errors import UserError
from xkd.training.build import build_networks
from xkd.training.distributed import ALONE
from xkd.training.pretraining import pretrainer
from xkd.training.recorder import STEP_TIMES


class SharedLoader:
    """Five random batches of eight clips an epoch, in float64; each process gets its share."""

    classes = ("one", "two")

    def __init__(self, recipe, group, fault=None):
        self.views, self.mels, self.group, self.fault = recipe.views, recipe.logmel.n_mels, group, fault
        self.local = 2 if recipe.has_teachers else 1

    def __len__(self):
        return 5

    def close(self):
        pass

    def set_epoch(self, epoch, first=0):
        self.epoch, self.first = epoch, first

    def __iter__(self):
        for index in range(self.first, 5):
            draws = torch.Generator().manual_seed(10 * self.epoch + index)
            options = {"generator": draws, "dtype": torch.float64}
            names = ("global", "local")[: self.local]
            videos, spectrograms = ([getattr(self.views, f"{m}_{n}") for n in names] for m in ("video", "audio"))
            video = [torch.randn(8, 3, v.frames, v.size, v.size, **options) for v in videos]
            audio = [torch.randn(8, 1, self.mels, v.frames, **options) for v in spectrograms]
            if self.fault == "value" and index == 2:
                video[0][6, 0, 0, 0, 0] = float("nan")
            if self.fault == "clip" and index == 2 and self.group.rank == 1:
                raise UserError("clip7: cannot be read")
            if self.fault == "slow":
                time.sleep(0.05)
            labels = torch.arange(8) % 2
            share = self.group.share
            ids = [f"clip{n}" for n in share(torch.arange(8)).tolist()]
            views = {"video": [share(v) for v in video], "audio": [share(v) for v in audio]}
            yield Batch(ids, share(labels), views)


def shared_trainer(recipe, group=ALONE, fault=None):
    """A trainer of networks in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return pretrainer(recipe, build_networks(recipe, 0), SharedLoader(recipe, group, fault), 0, group)
    finally:
        torch.set_default_dtype(torch.float32)


def result(one):
    curves = pd.DataFrame(one.recorder.steps).drop(columns=list(STEP_TIMES)) if one.group.first else pd.DataFrame()
    return {"curves": curves.to_dict("list"), "weights": one.learner.objective.state_dict()}


def assert_same(got, wanted, curves=True):
    """The first process alone keeps curves."""
    assert got["curves"].keys() == (wanted["curves"].keys() if curves else set())
    assert len(wanted["curves"]["loss"]) == 10
    for name, values in wanted["curves"].items() if curves else ():
        assert got["curves"][name] == pytest.approx(values, rel=1e-6, abs=1e-9), name
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(got["weights"][name], value, rtol=1e-6, atol=1e-6, msg=name)
