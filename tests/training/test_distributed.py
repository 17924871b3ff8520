"""A batch as a whole, shared by processes, and in parts: the same losses and weights; errors end all with one line."""

import os
import signal
import time

import pandas as pd
import pytest
import torch
from forks import code_of, group
from test_loop import Batch, settings, train

from xkd.errors import UserError
from xkd.training import distributed
from xkd.training.build import build_networks
from xkd.training.distributed import ALONE
from xkd.training.loop import Trainer
from xkd.training.recorder import TIMES

VARIANTS = {
    "xkd": {},
    "mas": {"share": "students"},
    "mats": {"share": "all"},
    "coral": {"discrepancy": "coral"},
    "ae_kd": {"alignment": 0.0},
    "ae": {"alignment": 0.0, "distillation": 0.0},
    "supervised": {"mode": "supervised"},
}


class SharedLoader:
    """Five random batches of eight clips an epoch, in float64; each process gets its share."""

    classes = ("one", "two")

    def __init__(self, recipe, group, fault=None):
        self.views, self.mels, self.group, self.fault = recipe.views, recipe.logmel.n_mels, group, fault
        self.local = 2 if recipe.has_teachers else 1

    def __len__(self):
        return 5

    def set_epoch(self, epoch, first=0):
        self.epoch, self.first = epoch, first

    def __iter__(self):
        for index in range(self.first, 5):
            draws = torch.Generator().manual_seed(10 * self.epoch + index)
            options = {"generator": draws, "dtype": torch.float64}
            names = ("global", "local")[: self.local]
            films, sounds = ([getattr(self.views, f"{m}_{n}") for n in names] for m in ("video", "audio"))
            video = [torch.randn(8, 3, v.frames, v.size, v.size, **options) for v in films]
            audio = [torch.randn(8, 1, self.mels, v.frames, **options) for v in sounds]
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


def recipe_of(variant, **training):
    changes = VARIANTS[variant]
    chosen = settings("xkd", **{"epochs": 2, "batch_size": 8, **training})
    update = {}
    for name in ("model", "objective", "training"):
        of = getattr(chosen, name)
        update[name] = of.model_copy(update={k: v for k, v in changes.items() if k in type(of).model_fields})
    return chosen.model_copy(update=update)


def trainer(variant, group=ALONE, fault=None, **training):
    recipe = recipe_of(variant, **training)
    torch.set_default_dtype(torch.float64)
    try:
        return Trainer(recipe, build_networks(recipe, 0), SharedLoader(recipe, group, fault), 0, group)
    finally:
        torch.set_default_dtype(torch.float32)


def result(one):
    curves = pd.DataFrame(one.recorder.steps).drop(columns=list(TIMES))
    return {"curves": curves.to_dict("list"), "weights": one.objective.state_dict()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Results of two processes, per variant and number of parts; and two that began alone."""
    folder = tmp_path_factory.mktemp("shared")

    def work():
        with distributed.joined() as ranks:
            found = {}
            for variant in VARIANTS:
                for parts in (1, 2):
                    found[variant, parts] = result(train(trainer(variant, ranks, accumulate=parts)))
            torch.save(found, folder / f"rank{ranks.rank}.pt")

    children = group(work, folder)
    assert [code_of(child) for child in children] == [0, 0], (folder / "rank0.txt").read_text()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def assert_same(got, wanted):
    assert got["curves"].keys() == wanted["curves"].keys()
    assert len(got["curves"]["loss"]) == 10
    for name, values in wanted["curves"].items():
        assert got["curves"][name] == pytest.approx(values, rel=1e-6, abs=1e-9), name
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(got["weights"][name], value, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_processes_and_parts_give_the_losses_and_weights_of_the_whole_batch(shared, variant):
    wanted = result(train(trainer(variant)))
    assert_same(result(train(trainer(variant, accumulate=2))), wanted)
    assert_same(result(train(trainer(variant, accumulate=4))), wanted)
    for rank in shared:
        assert_same(rank[variant, 1], wanted)
        assert_same(rank[variant, 2], wanted)


def run(folder, fault, stop=None, save=lambda state: None):
    """Two processes of training with a fault; their exit codes and what they printed."""

    def work():
        with distributed.joined() as ranks:
            try:
                train(trainer("xkd", ranks, fault), save=save)
            except UserError as error:
                print(f"xkd: error: {error}")
                raise SystemExit(2) from error

    children = group(work, folder)
    if stop:
        stop(children)
    codes = [code_of(child) for child in children]
    return codes, [(folder / f"rank{rank}.txt").read_text() for rank in range(2)]


def test_a_nan_is_found_by_all_and_the_first_names_the_clip_of_the_second(tmp_path):
    codes, (first, second) = run(tmp_path, "value")
    assert codes == [2, 2]
    assert "step 2: the loss is not finite" in first and first.endswith("Clips: clip6\n")
    assert second == ""


def test_an_error_in_one_process_ends_all_with_one_line(tmp_path):
    codes, said = run(tmp_path, "clip")
    assert codes == [2, 2]
    assert said == ["xkd: error: clip7: cannot be read\n", ""]


def test_an_error_while_saving_ends_all(tmp_path):
    def full(_state):
        raise UserError("no room")

    codes, said = run(tmp_path, None, save=full)
    assert codes == [2, 2]
    assert said == ["xkd: error: no room\n", ""]


def test_a_signal_to_one_process_saves_and_ends_all(tmp_path):
    """Twice, as torchrun's agent sends another one to a process that SLURM has told already."""

    def stop(children):
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        for _ in range(2):
            os.kill(children[1], signal.SIGTERM)
            time.sleep(0.02)

    def save(state):
        torch.save(state, tmp_path / ("state" if (tmp_path / "started").exists() else "started"))

    chosen = {"save": save, "stop": stop}
    codes, said = run(tmp_path, "slow", **chosen)
    assert codes == [143, 143]
    assert "stopped by SIGTERM; saved" in said[0] and said[1] == ""
    state = torch.load(tmp_path / "state", weights_only=True)
    assert 5 <= 5 * state["epoch"] + state["batch"] < 10
    assert len(state["random"]) == 2


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="8 clips cannot be shared equally by 3 processes in 2 parts"):
        trainer("xkd", distributed.Group(rank=0, size=3), accumulate=2)
