"""What `xkd plan` says, against the real networks, PyTorch's own counter and what autograd keeps."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xkd import params
from xkd.errors import UserError
from xkd.plan.arithmetic import encoder_forward, step_flops
from xkd.plan.evaluations import evaluation_jobs
from xkd.plan.footprint import memory, networks_without_memory, parameters
from xkd.plan.hardware import Hardware
from xkd.plan.shapes import patch_counts, view_shapes
from xkd.plan.storage import ClipInventory, checkpoint_bytes, clip_inventory, encoder_bytes
from xkd.stages import plan as stage
from xkd.training.build import build_networks, trainable_parameters
from xkd.training.export import save_encoders
from xkd.training.objective import run_objective
from xkd.training.optimiser import make_optimiser
from xkd.training.sharing import Inputs, SharedObjective, objective_outputs
from xkd.training.step import Step as TrainingStep

ROOT = Path(__file__).parents[1]
PAPER, MINIATURE = ROOT / "workflow" / "presets" / "paper.yaml", ROOT / "workflow" / "presets" / "miniature.yaml"
SETTINGS = params.load(ROOT / "params.yaml")
PICTURES = SETTINGS.tasks["linear"].model_copy(update={"modalities": ("video",)})
CLIPS = dict.fromkeys(
    ("talking_digits", "labelled_digits"),
    ClipInventory({"train": 500, "test": 500}, "", ("video", "audio"), 0, 0),
)
HARDWARE = Hardware.of(312e12, 0.4, gpus=8)
ROWS = ["xkd", "xkd_mas", "xkd_mats", "ae", "recon_audio", "ae_kd", "ae_da", "xkd_no_refinement", "xkd_teacher_local"]


def small(ablation, batch=3, precision="float32", **changes):
    recipe = params.recipe(SETTINGS, ablation)
    training = recipe.training.model_copy(update={"batch_size": batch, "precision": precision})
    return recipe.model_copy(update={"training": training, **changes})


def evaluation_flops(settings, recipe):
    return {job.name: job.flops for job in evaluation_jobs(settings, recipe, CLIPS)}


class Step:
    """A real training step on noise."""

    def __init__(self, recipe):
        self.recipe, self.networks = recipe, build_networks(recipe, 0)
        self.objective = run_objective(recipe, self.networks, classes=10)
        self.optimiser = make_optimiser(self.objective.train(), 1e-3, (0.9, 0.95), 0.1)
        size = recipe.training.batch_size
        views = {m: [torch.randn(size, *s) for s in shapes] for m, shapes in view_shapes(recipe).items()}
        ranks = {m: torch.rand(size, patch_counts(recipe, m)[0]) for m in views if self.objective.masks}
        momentum = {m: 0.9 for m in self.networks.teachers}
        self.inputs = Inputs(views, ranks, {"video": 0.1, "audio": 0.1}, torch.arange(size), momentum)
        self.update = TrainingStep(SharedObjective(self.objective, 0.3), self.optimiser, recipe.training.precision)

    def loss(self):
        with self.update.autocast():
            return self.objective(objective_outputs(self.objective, self.inputs))[0]

    def __call__(self):
        self.update(self.inputs)


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("ablation", ROWS)
def test_operations_of_a_step_are_those_that_pytorch_counts(ablation):
    recipe = small(ablation)
    step = Step(recipe)
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels compute products again, which no model's arithmetic includes
        assert step_flops(recipe).total == counted(step)


def rope(recipe, **sizes):
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"arch": "rope", **sizes})})


def test_operations_of_other_objectives_sizes_and_backbones():
    plain = small("xkd")
    coral = plain.model_copy(update={"objective": plain.objective.model_copy(update={"discrepancy": "coral"})})
    wide = plain.model.model_copy(
        update={"depth": 3, "decoder": plain.model.decoder.model_copy(update={"width": 96, "depth": 2})}
    )
    views = plain.views.model_copy(update={"local_views": 3})
    for recipe in (coral, small("xkd_mats", batch=2, model=wide, views=views), rope(plain), rope(small("xkd_mas"))):
        with sdpa_kernel(SDPBackend.MATH):
            assert step_flops(recipe).total == counted(Step(recipe))


def test_operations_of_the_supervised_yardstick_leave_out_its_classifier():
    recipe = small("supervised")
    with sdpa_kernel(SDPBackend.MATH):
        assert step_flops(recipe).total == pytest.approx(counted(Step(recipe)), rel=0.001)


def test_the_whole_is_the_sum_of_what_is_shown():
    flops = step_flops(small("xkd"))
    assert flops.total == sum(part.forward + part.backward for part in flops.parts)
    assert flops.teachers == sum(part.forward for part in flops.parts if "teacher" in part.name)


def test_operations_of_evaluation_are_those_of_an_encoder():
    recipe = small("xkd", batch=1)
    for modality, encoder in build_networks(recipe, 0).students.items():
        view = torch.randn(1, *view_shapes(recipe)[modality][0])
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            assert encoder_forward(recipe, modality) == counted(lambda e=encoder, v=view: e.features(v))


@pytest.mark.parametrize("recipe", [*map(small, [*ROWS, "supervised"]), rope(small("xkd_mas"))])
def test_parameters_are_those_of_the_networks(recipe):
    networks, told = build_networks(recipe, 0), parameters(recipe)
    assert told["trainable"] == trainable_parameters(networks)
    assert told["trainable"] + told["teachers"] == sum(p.numel() for p in networks.parameters())
    assert sum(told.values()) == 2 * (told["trainable"] + told["teachers"])


def test_an_untrained_run_takes_no_steps_and_no_memory_to_train():
    recipe = small("random_init")
    assert parameters(recipe)["trainable"] == 0 == step_flops(recipe).total
    assert memory(recipe).gradients == memory(recipe).activations == 0


@pytest.mark.parametrize("ablation", ["xkd", "xkd_mats", "ae", "supervised"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ["vit", "rope"])
def test_activations_are_what_autograd_keeps(ablation, precision, arch):
    """Within 10 %, weights and the views themselves left out."""
    recipe = small(ablation, batch=8, precision=precision)
    model = recipe.model.model_copy(update={"arch": arch})
    recipe = recipe.model_copy(update={"model": model})
    step, kept = Step(recipe), {}
    own = {p.untyped_storage().data_ptr() for p in step.networks.parameters()}
    own |= {view.untyped_storage().data_ptr() for views in step.inputs.views.values() for view in views}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step.loss()
    views = sum(view.nbytes for views in step.inputs.views.values() for view in views)
    assert loss.isfinite()
    assert memory(recipe).activations - views == pytest.approx(sum(kept.values()), rel=0.1)


def test_weights_gradients_and_optimiser_are_those_of_a_step():
    recipe = small("xkd")
    step, told = Step(recipe), memory(recipe)
    step()
    held = list(step.networks.parameters())
    assert told.weights == sum(p.nbytes for p in held)
    assert told.gradients == sum(p.grad.nbytes for p in held if p.grad is not None)
    moments = [v for state in step.optimiser.state.values() for v in state.values() if v.numel() > 1]
    assert told.optimiser == pytest.approx(sum(v.nbytes for v in moments), rel=0.01)


def test_processes_share_clips_but_not_weights():
    one, eight = (memory(small("xkd", batch=16), processes) for processes in (1, 8))
    assert (eight.weights, eight.optimiser) == (one.weights, one.optimiser)
    assert eight.activations == pytest.approx(one.activations / 8)


def test_encoders_and_checkpoints_take_the_room_that_is_told(tmp_path):
    recipe = small("xkd_mats")
    networks = build_networks(recipe, 0)
    save_encoders(networks, recipe, 0, tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert encoder_bytes(recipe) == pytest.approx(written, rel=0.05)
    step = Step(recipe)
    step()
    torch.save({"objective": step.objective.state_dict(), "optimiser": step.optimiser.state_dict()}, tmp_path / "c.pt")
    assert checkpoint_bytes(recipe) == pytest.approx((tmp_path / "c.pt").stat().st_size, rel=0.1)


def test_the_paper_needs_no_data_and_no_memory(tmp_path, monkeypatch):
    """Figures of the paper: ViT-B encoders of 86 to 88 M, 240,258 clips, batch 256, 800 epochs."""
    monkeypatch.chdir(tmp_path)
    plan = stage.make(params.load(PAPER), None, HARDWARE)
    one = plan["ablation"]
    assert plan["clips"]["kinetics400"]["source"] == "catalogue"
    assert one["steps"] == 800 * (240258 // 256)
    assert one["tokens"] == {
        "video": {"global": 392, "global_visible": 59, "local": [72]},
        "audio": {"global": 560, "global_visible": 112, "local": [140]},
    }
    assert 85e6 < one["parameters"]["student audio"] < one["parameters"]["student video"] < 89e6
    assert one["hours"] == pytest.approx(one["flops"] / (8 * 312e12 * 0.4) / 3600)
    assert plan["total"]["hours"] == pytest.approx(sum(row["hours"] for row in plan["ablations"].values()))
    assert next(networks_without_memory(params.recipe(params.load(PAPER), "xkd")).parameters()).is_meta


def test_seeds_and_evaluations_are_in_the_sum():
    plan = stage.make(SETTINGS, "ae", HARDWARE)
    assert plan["total"]["runs"] == len(SETTINGS.seeds) * len(SETTINGS.ablations)
    rows = plan["ablations"]
    assert set(rows["xkd"]["evaluations"]) == {"linear", "finetune"}
    assert set(rows["ae_kd"]["evaluations"]) == {"linear"}
    one_seed = sum(row["flops"] + sum(row["evaluations"].values()) for row in rows.values())
    assert plan["total"]["flops"] == pytest.approx(len(SETTINGS.seeds) * one_seed)


@pytest.mark.parametrize(("task", "passes"), [
    ({}, 500 + 500),
    ({"clips": 2, "crops": 3}, 6 * (500 + 500)),
    ({"clips": 2, "train_clips": 4}, 4 * 500 + 2 * 500),
    ({"folds": ["1", "2"], "train_clips": 4}, 4 * 1000 + 1000),
])  # fmt: skip
def test_a_probe_passes_each_view_once_through_each_encoder(task, passes):
    settings = SETTINGS.model_copy(update={"tasks": {"linear": PICTURES.model_copy(update=task)}})
    recipe = params.recipe(settings, "ae")
    assert evaluation_flops(settings, recipe) == {"linear": passes * encoder_forward(recipe, "video")}


def test_a_task_with_larger_views_costs_more():
    larger = PICTURES.model_copy(update={"views": {"video_global": {"size": 80}}})
    settings = SETTINGS.model_copy(update={"tasks": {"plain": PICTURES, "larger": larger}})
    told = evaluation_flops(settings, params.recipe(settings, "ae"))
    assert told["larger"] > 3 * told["plain"]


def test_a_data_set_of_its_own_size_takes_its_own_room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the checkout may have clips already, whose manifest would count
    entry = SETTINGS.datasets["talking_digits"].model_copy(update={"size": 2 * SETTINGS.clips.size})
    larger = SETTINGS.model_copy(update={"datasets": {"talking_digits": entry}})
    plain, wide = (clip_inventory(settings, "talking_digits") for settings in (SETTINGS, larger))
    sound = plain.all * 2 * SETTINGS.clips.sample_rate
    room = [counts.packed - sound for counts in (plain, wide)]
    assert room[1] == 4 * room[0]


def test_clips_come_from_the_manifest_when_there_is_one(tmp_path, monkeypatch):
    from xkd.data import manifest

    monkeypatch.chdir(tmp_path)
    assert clip_inventory(SETTINGS, "talking_digits").source == "settings"
    folder = Path("data/talking_digits")
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"x" * 1000)
    lines = [",".join(manifest.MANIFEST_COLUMNS)]
    found = [("train", "ok"), ("train", "ok"), ("test", "ok"), ("train", "unusable")]
    lines += [
        f"{n},a.mp4,{split},,one,1.0,8,32,32,16000,True,True,,,d,{status}," for n, (split, status) in enumerate(found)
    ]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    counts = clip_inventory(SETTINGS, "talking_digits")
    assert (counts.splits, counts.source) == ({"train": 2, "test": 1}, "data/talking_digits/manifest.csv")
    assert counts.prepared == 3000
    clips = SETTINGS.clips
    assert counts.packed == 3 * (8 * 3 * clips.size**2 + 2 * clips.sample_rate)
    with pytest.raises(UserError, match="batch_size: 32, but talking_digits has 2 training clips"):
        stage.make(SETTINGS, "xkd", HARDWARE)


def test_own_files_must_be_prepared_or_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "extends: {}\ndataset: own\ndatasets: {{own: {{kind: folder, source: films}}}}\n".format(
        ROOT / "params.yaml"
    )
    (tmp_path / "own.yaml").write_text(text)
    own = params.load(tmp_path / "own.yaml")
    with pytest.raises(UserError, match="data/own/manifest.csv is not there yet.*--clips"):
        stage.make(own, None, HARDWARE)
    assert stage.make(own, None, HARDWARE, clips=1600)["ablation"]["steps"] == 5 * 50


def test_a_limit_caps_the_clips_of_a_known_data_set():
    entry = SETTINGS.datasets["esc50"].model_copy(update={"limit": 3})
    limited = SETTINGS.model_copy(update={"datasets": {"esc50": entry}})
    assert clip_inventory(limited, "esc50").splits == {"train": 150, "test": 150}


def test_tables_and_json_say_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = {"ablation": "xkd", "peak_tflops": 1.0, "utilisation": 0.5, "gpus": 2, "clips": None}
    stage.run(params.load(MINIATURE), **asked, as_json=True)
    told = json.loads(capsys.readouterr().out)
    stage.run(params.load(MINIATURE), **asked, as_json=False)
    shown = capsys.readouterr().out
    assert told["hardware"].items() >= {"gpus": 2, "peak": 1e12, "utilisation": 0.5, "memory": None}.items()
    assert f"{told['ablation']['parameters']['trainable']:,}" in shown
    assert f"{told['ablation']['steps']} (2 epochs, batch 20)" in shown
    assert all(name in shown for name in ("xkd", "ae", "total", "teacher video", "checkpoints", "4 runs"))
