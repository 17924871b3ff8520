"""Finetuning has what the engine has: interruptions, folds that are kept, processes, parts, precisions."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from downstream_fakes import Loader, TinyEncoder, finetuned, rows
from forks import code_of, group
from run_folders import note, seal

from xkd import params as settings_of
from xkd import runs
from xkd.data import manifest as manifests
from xkd.errors import UserError
from xkd.models.encoder import Stack
from xkd.settings import Finetune
from xkd.stages import evaluate
from xkd.training import distributed
from xkd.training.build import build_networks
from xkd.training.distributed import ALONE
from xkd.training.export import save_encoders
from xkd.training.loop import Trainer

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
TASKS = {"finetune": {"protocol": "finetune"}, "folds": {"protocol": "finetune", "folds": ["a", "b"]}}
ALL = Finetune(epochs=3, learning_rate=0.01, mixup=0.3, dropout=0.2)


@pytest.fixture(scope="module")
def project(tmp_path_factory, miniature):
    """Prepared clips in two folds, and a run of random encoders."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(miniature, folder, dirs_exist_ok=True)
    recipe = settings_of.recipe(changed(), "xkd")
    save_encoders(build_networks(recipe, 0), recipe, 0, folder / "run")
    seal(folder / "run")
    whole = manifests.read_manifest(folder / "manifest.csv").rows
    manifests.write_manifest(folder / "manifest.csv", whole.assign(fold=["ab"[i % 2] for i in range(len(whole))]))
    note(folder / "manifest.csv")
    return folder


@pytest.fixture(autouse=True)
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def changed(**finetune):
    values = yaml.safe_load(MINIATURE.read_text())
    finetune = {"epochs": 3, "batch_size": 10, "mixup": 0.5, "dropout": 0.1, **finetune}
    return settings_of.Params.model_validate(values | {"evaluate": {"finetune": finetune}, "tasks": TASKS})


def judge(project, task, out, params=None, **options):
    evaluate.run(params or changed(), project / "manifest.csv", project / "run", task, out, **options)
    return {path.suffixes[-2]: path.read_bytes() for path in out.parent.glob(f"{out.stem}.[cps]*.*")}


def stopping_at(monkeypatch, step, number=signal.SIGTERM):
    """Sends a signal during that step of the process; returns the steps that were taken."""
    taken, take = [], Trainer.take_step

    def counted(self, *arguments):
        taken.append(self.step)
        if len(taken) == step:
            signal.raise_signal(number)
        return take(self, *arguments)

    monkeypatch.setattr(Trainer, "take_step", counted)
    return taken


@pytest.fixture(scope="module")
def peace(project, tmp_path_factory):
    """The files of an evaluation that nobody interrupted."""
    out = tmp_path_factory.mktemp("peace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHECKPOINTS", out / "checkpoints")
        found = judge(project, "folds", out / "folds.json")
    assert set(found) == {".predictions", ".confusion", ".scores"}
    return found


STEPS = 3 * 4  # of each fold: epochs, batches of 40 training clips


@pytest.mark.parametrize("stop", [4, STEPS + 7])
def test_an_interrupted_finetuning_goes_on_where_it_was(project, peace, tmp_path, checkpoints, monkeypatch, stop):
    """Stopped in the first fold or in the second; no step is taken twice, and a finished fold is not trained again."""
    taken = stopping_at(monkeypatch, stop)
    with pytest.raises(SystemExit) as left:
        judge(project, "folds", tmp_path / "folds.json")
    assert left.value.code == 143
    assert len(taken) == stop
    assert judge(project, "folds", tmp_path / "folds.json") == peace
    assert taken == 2 * list(range(STEPS))
    assert not list(checkpoints.rglob("*.pt"))


def test_other_settings_refuse_the_checkpoint_and_ways_of_execution_do_not(project, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        stopping_at(patch, 4, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            judge(project, "finetune", tmp_path / "out.json")
    with pytest.raises(UserError, match=r"finetune.learning_rate was 0.001, is 0.002. Undo that; .*XKD_RESUME=anew"):
        judge(project, "finetune", tmp_path / "out.json", changed(learning_rate=0.002))
    taken = stopping_at(monkeypatch, None)
    judge(project, "finetune", tmp_path / "out.json", changed(accumulate=2, checkpoint_activations=True))
    assert taken == list(range(4, 18))


def test_processes_share_the_training_and_the_test_clips(project, tmp_path):
    """One writes; float32, so nearly the scores of one process. Another protocol is run by the first alone."""
    plain = changed(mixup=0.0, dropout=0.0)
    judge(project, "finetune", tmp_path / "one" / "finetune.json", plain)

    def work():
        judge(project, "finetune", tmp_path / "two" / "finetune.json", plain)

    children = group(work, tmp_path)
    assert [code_of(child) for child in children] == [0, 0], (tmp_path / "rank0.txt").read_text()
    assert (tmp_path / "rank1.txt").read_text() == ""
    one, two = (pd.read_parquet(tmp_path / name / "finetune.scores.parquet") for name in ("one", "two"))
    assert two["id"].tolist() == one["id"].tolist()
    scores = [name for name in one if name.startswith("score.")]
    torch.testing.assert_close(torch.tensor(two[scores].values), torch.tensor(one[scores].values), rtol=0, atol=1e-3)


class Shared(Loader):
    """This process's share of float64 batches."""

    def __init__(self, ranks=ALONE):
        super().__init__(rows(48), 8, 0.3)
        self.ranks = ranks

    def __iter__(self):
        for batch in super().__iter__():
            share = self.ranks.share
            views = {m: [share(view.double()) for view in of] for m, of in batch.views.items()}
            names = [batch.ids[i] for i in share(torch.arange(8)).tolist()]
            yield SimpleNamespace(ids=names, labels=share(batch.labels), views=views)


def weights_of(chosen, ranks=ALONE):
    encoders = {m: TinyEncoder(seed=seed).double() for seed, m in enumerate(("video", "audio"))}
    torch.set_default_dtype(torch.float64)
    try:
        models = finetuned(encoders, Shared(ranks), chosen, 0, group=ranks)
    finally:
        torch.set_default_dtype(torch.float32)
    return {f"{m} {name}": value for m, model in models.items() for name, value in model.state_dict().items()}


def test_processes_and_parts_give_the_weights_of_the_whole_batch(tmp_path):
    plain = ALL.model_copy(update={"mixup": 0.0, "dropout": 0.0, "batch_size": 8})

    def work():
        with distributed.joined() as ranks:
            torch.save(weights_of(plain, ranks), tmp_path / f"{ranks.rank}.pt")

    children = group(work, tmp_path)
    assert [code_of(child) for child in children] == [0, 0], (tmp_path / "rank0.txt").read_text()
    wanted = weights_of(plain)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), wanted, rtol=1e-6, atol=1e-8)
    mixed = ALL.model_copy(update={"batch_size": 8})
    parts = weights_of(mixed.model_copy(update={"accumulate": 4}))
    torch.testing.assert_close(parts, weights_of(mixed), rtol=1e-6, atol=1e-8)


def test_recomputed_activations_change_nothing_and_bfloat16_little():
    recipe = settings_of.recipe(changed(), "xkd")
    encoders = dict(build_networks(recipe, 0).students.items())
    view = recipe.views.video_global

    class Clips(Loader):
        def __iter__(self):
            draws = torch.Generator().manual_seed(0)
            for batch in super().__iter__():
                video = torch.randn(8, 3, view.frames, view.size, view.size, generator=draws)
                batch.views["video"] = [video + batch.labels.view(-1, 1, 1, 1, 1)]
                yield batch

    found = {}
    for name, chosen in {
        "plain": {},
        "recomputed": {"checkpoint_activations": True},
        "bfloat16": {"precision": "bfloat16"},
    }.items():
        settings = Finetune(epochs=1, batch_size=8, **chosen)
        model = finetuned({"video": encoders["video"]}, Clips(rows(24), 8), settings, 0)["video"]
        found[name] = model.state_dict()
        assert {stack.recompute for stack in model.modules() if isinstance(stack, Stack)} == {name == "recomputed"}
    for key, value in found["plain"].items():
        assert torch.equal(value, found["recomputed"][key]), key
        torch.testing.assert_close(found["bfloat16"][key], value, rtol=0, atol=0.01)
    assert not torch.equal(found["bfloat16"]["head.weight"], found["plain"]["head.weight"])


def test_a_batch_that_cannot_be_shared_is_refused():
    ranks = replace(ALONE, size=3)
    with pytest.raises(UserError, match=r"evaluate.finetune.batch_size: 8 clips cannot be shared equally by 3 proc"):
        weights_of(ALL.model_copy(update={"batch_size": 8}), ranks)
