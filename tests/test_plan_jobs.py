"""What `xkd plan` says about each job: its GPUs, hours, loader and memory, and where they do not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xkd import params
from xkd.plan.counting import kept_bytes, operations
from xkd.plan.evaluations import evaluation_jobs
from xkd.plan.hardware import Hardware
from xkd.plan.loading import Stored, stored, training_load
from xkd.plan.shapes import decoder_run, encoder_run
from xkd.plan.storage import ClipInventory, clip_inventory
from xkd.stages import plan as stage

ROOT = Path(__file__).parents[1]
PRESETS = ROOT / "workflow" / "presets"
SETTINGS = params.load(ROOT / "params.yaml")
CLIPS = dict.fromkeys(
    ("talking_digits", "labelled_digits"),
    ClipInventory({"train": 512, "test": 500}, "", ("video", "audio"), 0, 0),
)
A100 = Hardware.of(312e12, 0.4)
# Nothing is wrong with these jobs, whatever the machine is asked to do in the tests below.
AMPLE = {"gpus": 1, "cpus": 400, "memory_gb": 1000, "runtime": 100_000}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Returns a function that loads params.yaml with changes, two rows and ample resources."""
    monkeypatch.chdir(tmp_path)
    few = {name: None for name in SETTINGS.ablations if name not in ("xkd", "ae")}
    base = {
        "extends": str(ROOT / "params.yaml"),
        "ablations": few,
        "training": {"workers": 300},
        "resources": {"pretrain": AMPLE, "evaluate": AMPLE},
    }

    def load(**changes):
        path = tmp_path / "changed.yaml"
        path.write_text(json.dumps(params.merge(base, changes)))
        return params.load(path)

    return load


def warnings(settings, hardware=None):
    """The warnings by job and kind; the machine takes 1 clip a second or so."""
    return {(w["job"], w["kind"]): w for w in stage.make(settings, None, hardware or machine())["warnings"]}


def machine(**changes):
    return replace(Hardware(None, 1e10, 1.0, 1e10, 1e12), **changes)


@pytest.mark.parametrize(("preset", "peak", "memory_gb", "days"), [
    ("paper", 312e12, 80, 30),
    ("one_gpu", 71e12, 24, 1),
    ("one_node", 312e12, 40, 4),
])  # fmt: skip
def test_presets_fit_the_machines_that_they_name(preset, peak, memory_gb, days, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = stage.make(params.load(PRESETS / f"{preset}.yaml"), None, Hardware.of(peak, 0.4, memory_gb=memory_gb))
    assert plan["warnings"] == []
    hours = plan["total"]["hours"] + plan["total"]["evaluation_hours"]
    assert 0 < hours < 24 * days


def test_a_known_gpu_has_its_memory_and_its_peak_in_float32():
    assert (A100.memory, A100.full_peak) == (80e9, 19.5e12)
    unknown = Hardware.of(1e12, 0.4)
    assert (unknown.memory, unknown.full_peak) == (None, 1e12)
    own = Hardware.of(312e12, 0.4, memory_gb=40, full_peak=156e12)
    assert (own.memory, own.full_peak) == (40e9, 156e12)


def test_the_utilisation_is_as_measured_where_it_was():
    assert [Hardware.of(peak).utilisation for peak in (989e12, 312e12, 1e12)] == [0.2, 0.4, 0.4]
    assert Hardware.of(989e12, 0.5).utilisation == 0.5


def test_each_job_has_its_own_gpus_and_precision(settings):
    """Frozen features run on one GPU in float32 (19.5 TFLOP/s), finetuning on four in bfloat16."""
    asked = {"evaluate": {"gpus": 1}, "protocols": {"finetune": {"gpus": 4}}}
    changed = settings(resources=asked, evaluate={"finetune": {"precision": "bfloat16"}})
    jobs = {job.name: job for job in evaluation_jobs(changed, params.recipe(changed, "xkd"), CLIPS)}
    linear, finetune = jobs["linear"], jobs["finetune"]
    assert linear.hours(A100) == pytest.approx(linear.flops / (19.5e12 * 0.4) / 3600)
    assert finetune.hours(A100) == pytest.approx(finetune.flops / (4 * 312e12 * 0.4) / 3600)
    assert finetune.phases[0].batch == 4


def test_features_of_their_own_job_use_its_resources(settings):
    changed = settings(resources={"features": {"gpus": 1, "cpus": 5}, "evaluate": {"gpus": 0}})
    jobs = {job.name: job for job in evaluation_jobs(changed, params.recipe(changed, "xkd"), CLIPS)}
    assert (jobs["linear"].gpus, jobs["linear"].asked.cpus) == (1, 5)
    assert jobs["finetune"].gpus == 0


def test_recomputed_activations_cost_time_and_save_memory(settings):
    both = settings(), settings(evaluate={"finetune": {"checkpoint_activations": True}})
    plain, saving = (evaluation_jobs(one, params.recipe(one, "xkd"), CLIPS)[-1] for one in both)
    assert saving.phases[0].flops == pytest.approx(4 / 3 * plain.phases[0].flops)
    assert saving.memory.activations < plain.memory.activations


def test_nothing_is_said_of_jobs_that_fit(settings):
    assert warnings(settings()) == {}


def test_gpus_starve_if_the_cores_cannot_load_what_they_take(settings):
    few = settings(training={"workers": 2}, resources={"pretrain": {"cpus": 3}})
    fast = machine(peak=1e14, full_peak=1e14)
    warned = warnings(few, fast)["pretrain", "starves"]
    assert warned["ablations"] == ["ae", "xkd"]  # the worse one first
    assert "2 cores load" in warned["message"]
    assert "raise cpus and training.workers" in warned["message"]
    assert ("pretrain", "starves") not in warnings(few, replace(fast, loader_rate=1e6))
    assert ("pretrain", "starves") not in warnings(few)


def test_batches_that_do_not_fit_the_queue_leave_loader_processes_idle(settings):
    warned = warnings(settings(training={"queue_gb": 0.001}), machine(peak=1e14, full_peak=1e14))
    assert "1 core loads" in warned["pretrain", "starves"]["message"]
    assert "raise training.queue_gb" in warned["pretrain", "starves"]["message"]


def test_memory_of_a_gpu_and_of_a_node_is_compared(settings):
    kinds = {kind for _, kind in warnings(settings(), machine(memory=1e6))}
    assert kinds == {"exceeds memory of the GPU"}
    low = warnings(settings(resources={"pretrain": {"memory_gb": 5}}))
    assert list(low) == [("pretrain", "exceeds memory of the node")]
    assert warnings(settings(resources={"pretrain": {"memory_gb": 5}}, training={"workers": 2})) == {}


def test_a_job_longer_than_its_limit_needs_restarts(settings):
    slow = machine(peak=1e7, full_peak=1e7)
    short = settings(resources={"pretrain": {"runtime": 600}, "evaluate": {"runtime": 60}})
    warned = warnings(short, slow)
    hours = stage.make(short, "xkd", slow)["ablation"]["hours"]
    restarts = int(hours / 10)
    assert (
        f"{hours:,.1f} h of arithmetic, runtime is 10 h; it needs {restarts} restarts"
        in (warned["pretrain", "does not fit its time limit"]["message"])
    )
    assert "it begins again at each restart" in warned["linear", "does not fit its time limit"]["message"]
    assert "from its checkpoint" in warned["finetune", "does not fit its time limit"]["message"]


def test_warnings_are_lines_at_the_end(settings, capsys):
    asked = {"ablation": None, "peak_tflops": 0.01, "utilisation": 1.0, "gpus": None, "clips": None}
    stage.run(settings(), **asked, as_json=False, gpu_memory_gb=0.001)
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("warning: ")]
    assert said == lines[-len(said) :]
    assert said[0].startswith("warning: pretrain of xkd (and 1 more) exceeds memory of the GPU: a process needs ")


@pytest.mark.parametrize(("decoded", "augment", "rate"), [
    (False, "cpu", 35.3), (False, "device", 54.4), (True, "cpu", 67.4), (True, "device", 174.7),
])  # fmt: skip
def test_a_core_loads_what_the_benchmark_measured(decoded, augment, rate):
    """Clips per second of benchmarks.loader_paper (docs/loader.md)."""
    paper = params.recipe(params.load(PRESETS / "paper.yaml"), "xkd")
    recipe = paper.model_copy(update={"training": paper.training.model_copy(update={"augment": augment})})
    load = training_load(recipe, Stored(decoded, 128, 4.0), ("video", "audio"), local_views=1)
    assert 1 / load.seconds == pytest.approx(rate, rel=0.05)


def test_shards_decide_how_clips_lie_on_disk_and_their_room(settings):
    plain = settings(clips={"pack": False})
    found = [plain, *(settings(clips={"pack": False}, datasets=shards(form)) for form in ("encoded", "decoded"))]
    assert [stored(one, None).decoded for one in found] == [False, False, True]
    assert [clip_inventory(one, "talking_digits").packed for one in found] == [
        0,
        clip_inventory(plain, "talking_digits").prepared,
        clip_inventory(settings(), "talking_digits").packed,
    ]


def shards(form):
    return {"talking_digits": {"shards": {"form": form}}}


def test_counts_of_deep_networks_follow_from_shallow_ones():
    recipe = params.recipe(SETTINGS, "xkd")
    deep = recipe.model.model_copy(update={"depth": 5, "decoder": recipe.model.decoder.model_copy(update={"depth": 4})})
    recipe = recipe.model_copy(update={"model": deep})
    for run in (encoder_run(recipe, "video", 0), encoder_run(recipe, "audio", 1), decoder_run(recipe, "video")):
        whole = replace(run, alike=False)
        assert operations(run, trained=True) == operations(whole, trained=True)
        for precision, recompute in ((None, False), (torch.bfloat16, False), (torch.bfloat16, True)):
            assert kept_bytes(run, precision, recompute) == kept_bytes(whole, precision, recompute)
