import numpy as np
import pytest
import torch
from tiny_runs import settings, trainer

from xkd.training import embeddings
from xkd.training.build import build_networks

CLIPS = 40


class Texts(list):
    def take(self, numbers):
        return [self[number] for number in numbers]


class Store:
    """Clips that can be told apart: clip i is as bright and as loud as its number says."""

    def __init__(self, clips):
        self.ids = Texts(f"clip{number}" for number in range(clips))
        self.labels = Texts(str(number % 3) for number in range(clips))

    def __len__(self):
        return len(self.ids)

    def seconds(self, index):
        return 1.0

    def video(self, index, start=0.0, seconds=None):
        return torch.full((8, 3, 32, 32), 5 * index, dtype=torch.uint8)

    def audio(self, index, start=0.0, seconds=None):
        return 0.01 * (1 + index) * torch.sin(torch.arange(16000) / 20)


@pytest.fixture
def clips(monkeypatch):
    monkeypatch.setattr(embeddings, "HELD_OUT_CLIPS", 21)
    opened = []
    monkeypatch.setattr(embeddings, "open_clips", lambda path, split: opened.append(split) or Store(CLIPS))
    return opened


def saved(ablation, clips, folder):
    chosen = settings(ablation)
    after = trainer(chosen).learner.networks
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.mul_(1.1)
    moments = {"before": build_networks(chosen, 0), "after": after}
    batches = embeddings.held_out(chosen, "manifest.csv", ("video", "audio"))
    embeddings.save_embeddings(moments, batches, torch.device("cpu"), folder)
    return chosen, moments, dict(np.load(folder / "embeddings.npz"))


def test_held_out_clips_are_spread_over_the_whole_split(clips, tmp_path):
    _, _, arrays = saved("xkd", clips, tmp_path)
    numbers = [int(clip.removeprefix("clip")) for clip in arrays["ids"]]
    assert clips == ["test"]
    assert (numbers[0], numbers[-1], len(numbers)) == (0, CLIPS - 1, 21)
    assert set(np.diff(numbers)) <= {1, 2}
    assert arrays["labels"].tolist() == [str(number % 3) for number in numbers]


def test_a_row_of_an_array_is_what_the_heads_say_of_that_clip(clips, tmp_path):
    chosen, moments, arrays = saved("xkd", clips, tmp_path)
    seen, store = embeddings.EvalViews(chosen), Store(CLIPS)
    place = 17
    views = seen(store, int(arrays["ids"][place].removeprefix("clip")))
    for moment, networks in moments.items():
        for modality, view in views.items():
            with torch.no_grad():
                logits = networks.student_heads[modality](networks.students[modality].features(view[0][None]))[0]
            np.testing.assert_allclose(arrays[f"{modality}_{moment}"][place], logits.numpy(), atol=2e-2)
    assert not np.allclose(arrays["video_before"], arrays["video_after"], atol=2e-2)


def test_a_run_without_heads_leaves_no_clips(clips, tmp_path):
    _, _, arrays = saved("ae", clips, tmp_path)
    assert {name: array.size for name, array in arrays.items()} == {"ids": 0, "labels": 0}


def test_nothing_is_drawn_from_the_global_generators(clips, tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)
    saved("xkd", clips, tmp_path)
    drawn = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    assert drawn == (torch.rand(1).item(), np.random.rand())
