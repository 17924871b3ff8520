"""A batch as a whole, shared by processes, and in parts: the same losses and weights; errors end all with one line."""

import os
import signal
import time

import pytest
import torch
from forks import code_of, group
from shared_runs import assert_same, result, shared_trainer
from tiny_runs import settings, train

from xkd.errors import UserError
from xkd.training import distributed
from xkd.training.distributed import ALONE

VARIANTS = {
    "xkd": {},
    "mas": {"share": "students"},
    "mats": {"share": "all"},
    "coral": {"discrepancy": "coral"},
    "ae_kd": {"alignment": 0.0},
    "ae": {"alignment": 0.0, "distillation": 0.0},
    "supervised": {"mode": "supervised"},
}


def trainer(variant, group=ALONE, fault=None, **training):
    return shared_trainer(recipe_of(variant, **training), group, fault)


def recipe_of(variant, **training):
    changes = VARIANTS[variant]
    chosen = settings("xkd", **{"epochs": 2, "batch_size": 8, **training})
    update = {}
    for name in ("model", "objective", "training"):
        of = getattr(chosen, name)
        update[name] = of.model_copy(update={k: v for k, v in changes.items() if k in type(of).model_fields})
    return chosen.model_copy(update=update)


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
            found["low"] = result(train(trainer("ae", ranks, exchange="bfloat16")))
            torch.save(found, folder / f"rank{ranks.rank}.pt")

    children = group(work, folder)
    assert [code_of(child) for child in children] == [0, 0], (folder / "rank0.txt").read_text()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_processes_and_parts_give_the_losses_and_weights_of_the_whole_batch(shared, variant):
    wanted = result(train(trainer(variant)))
    assert_same(result(train(trainer(variant, accumulate=2))), wanted)
    assert_same(result(train(trainer(variant, accumulate=4))), wanted)
    for number, rank in enumerate(shared):
        assert_same(rank[variant, 1], wanted, curves=number == 0)
        assert_same(rank[variant, 2], wanted, curves=number == 0)


def test_gradients_exchanged_in_bfloat16_are_nearly_the_same_and_the_same_everywhere(shared):
    wanted, (first, second) = result(train(trainer("ae"))), (rank["low"] for rank in shared)
    assert first["curves"]["loss"] == pytest.approx(wanted["curves"]["loss"], rel=1e-2)
    for name, value in wanted["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(first["weights"][name], value, rtol=0.01, atol=0.01, msg=name)
    assert first["curves"]["gradient_norm"] != pytest.approx(wanted["curves"]["gradient_norm"], rel=1e-6)


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
    assert "step 2: the loss is not finite" in first
    assert first.endswith("Clips: clip6\n")
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
    assert "stopped by SIGTERM; saved" in said[0]
    assert said[1] == ""
    state = torch.load(tmp_path / "state", weights_only=True)
    assert 5 <= 5 * state["epoch"] + state["batch"] < 10
    assert len(state["random"]) == 2


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="8 clips cannot be shared equally by 3 processes in 2 parts"):
        trainer("xkd", distributed.TrainingGroup(rank=0, size=3), accumulate=2)
