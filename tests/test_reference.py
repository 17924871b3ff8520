"""Every quantity of the reference files, computed with the released implementation in float64.

XKD_REFERENCE names another folder of such files; all that a file is about stands in its `meta`.
"""

import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xkd.encoders import released
from xkd.modalities import MODALITIES
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.models.encoder import Backbone, ModalityShape
from xkd.models.networks import Networks, NetworkSizes
from xkd.objectives.term import RunSizes
from xkd.settings import LogMel
from xkd.training.forward import run_teachers
from xkd.training.objective import Objective
from xkd.training.optimiser import make_optimiser
from xkd.training.sharing import Inputs, SharedObjective
from xkd.training.step import Step

FOLDER = Path(os.environ.get("XKD_REFERENCE", Path(__file__).parent / "reference"))
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.npz"))}
LOGMELS = [name for name, path in FILES.items() if not any(k.startswith("state/") for k in np.load(path).files)]
STEPS = [name for name in FILES if name not in LOGMELS]
SCALAR, ARRAY = {"rel": 1e-6, "abs": 1e-12}, {"rtol": 1e-5, "atol": 1e-5}
SHARE = {"xkd": "none", "mas": "students", "mats": "all"}
SHORT = {"video": "vid", "audio": "aud"}
TERMS = {
    "vid_recon_loss": ("reconstruction_video",),
    "aud_recon_loss": ("reconstruction_audio",),
    "recon_loss": ("reconstruction_video", "reconstruction_audio"),
    "as2vs_align_loss": ("alignment_students",),
    "vt2at_align_loss": ("alignment_teachers",),
    "alignment_loss": ("alignment_students", "alignment_teachers"),
    "vt2as_kd_loss": ("distillation_audio",),
    "at2vs_kd_loss": ("distillation_video",),
    "cmkd_loss": ("distillation_video", "distillation_audio"),
    "loss": ("loss",),
}
compared = Counter()


def tensors_of(networks):
    """(key of the reference, parameter) of every tensor; shared ones come under each name that holds them."""
    for m in MODALITIES:
        for owner, encoders, heads in (
            ("student", networks.students, networks.student_heads),
            ("teacher", networks.teachers, networks.teacher_heads),
        ):
            prefix = f"{SHORT[m]}_{owner}"
            for name, p in encoders[m].named_parameters():
                yield f"{prefix}.backbone.{released.encoder_key(m, name)}", p
            for name, p in heads[m].named_parameters():
                yield f"{prefix}.head.{released.head_key(name)}", p
        for name, p in networks.decoders[m].named_parameters():
            yield f"{SHORT[m]}_ae.{released.decoder_key(name)}", p


class Case:
    """Networks, objective and batch of a file, all as its `meta` says."""

    def __init__(self, name):
        self.name, self.numbers = name, np.load(FILES[name])
        self.meta = meta = json.loads(str(self.numbers["meta"]))
        spec, encoder, decoder, head = meta["spec"], meta["encoder"], meta["decoder"], meta["projector"]
        channels, *picture = spec["frame"]
        patches = {"video": (spec["vt"], *spec["vp"]), "audio": tuple(spec["ap"])}
        views = {"video": (spec["t"], *picture), "audio": tuple(spec["spec"])}
        shapes = {
            m: ModalityShape(
                patches[m],
                tuple(length // part for length, part in zip(views[m], patches[m], strict=True)),
                channels if m == "video" else 1,
            )
            for m in MODALITIES
        }
        sizes = NetworkSizes(
            Backbone("vit", encoder["embed_dim"], encoder["depth"], encoder["num_heads"]),
            (decoder["embed_dim"], decoder["depth"], decoder["num_heads"]),
            (head["hidden_dim"], head["bottleneck_dim"], head["out_dim"]),
            SHARE[meta["variant"]],
        )
        self.networks = Networks(shapes, sizes, MODALITIES, teachers=True).double()
        self.settings = SimpleNamespace(
            mask_video=meta["mask_ratio"]["video"],
            mask_audio=meta["mask_ratio"]["audio"],
            refinement=meta["cross_modal_attention"] or "none",
            teacher_view=meta["teacher_view"],
            discrepancy="mmd",
            student_temperature=meta["student_temperature"],
            centre_momentum=meta["center_momentum"],
            plugged={},
        )
        names = {"reconstruct": "reconstruction", "distill": "distillation", "align": "alignment"}
        weights = {ours: meta["loss_weights"][theirs] for theirs, ours in names.items()}
        weights = {name: weight for name, weight in weights.items() if weight or name == "reconstruction"}
        run_sizes = RunSizes(MODALITIES, encoder["embed_dim"], head["out_dim"])
        self.objective = Objective(self.networks, self.settings, weights, run_sizes).double()
        self.tensors = dict(tensors_of(self.networks)) | {
            "vt2as_ce_loss.center": self.objective.terms["distillation"].directions["audio"].centre,
            "at2vs_ce_loss.center": self.objective.terms["distillation"].directions["video"].centre,
        }
        with torch.no_grad():
            for key, tensor in self.tensors.items():
                tensor.copy_(self.read(f"state/{key}").reshape(tensor.shape))
        self.views = {m: [self.read(f"in/{m}/{v}") for v in range(meta["local_views"] + 1)] for m in MODALITIES}
        self.ranks = {m: self.read(f"in/noise/{m}") for m in MODALITIES}

    def step(self):
        """The step that `pretrain` takes, and what it gets."""
        settings = self.meta["optimizer"]
        optimiser = make_optimiser(self.networks, settings["lr"], tuple(settings["betas"]), settings["weight_decay"])
        inputs = Inputs(self.views, self.ranks, self.meta["teacher_temperature"], momentum=self.meta["ema"])
        return Step(SharedObjective(self.objective, self.meta["clip_grad_norm_per_parameter"]), optimiser), inputs

    def read(self, key):
        return torch.from_numpy(self.numbers[key]).double()

    def losses_at(self, step):
        """Names of the losses of a step; our objective leaves out terms of weight 0."""
        tags = {"reconstruct": "recon", "distill": "kd", "align": "align"}
        off = [tag for key, tag in tags.items() if not self.meta["loss_weights"][key]]
        return [name for name in self.under(f"step{step}") if not any(tag in name for tag in off)]

    def under(self, folder):
        """Names below out/<folder>/."""
        prefix = f"out/{folder}/"
        return [key.removeprefix(prefix) for key in self.numbers.files if key.startswith(prefix)]

    def same(self, got, key):
        wanted = self.numbers[f"out/{key}"]
        if wanted.size == 1:
            assert float(got) == pytest.approx(wanted.item(), **SCALAR), key
        else:
            np.testing.assert_allclose(
                got.detach().numpy().reshape(wanted.shape), wanted, err_msg=f"{self.name} {key}", **ARRAY
            )
        compared[self.name] += 1


def test_there_are_files_of_each_kind():
    assert STEPS, f"{FOLDER} holds no reference files of steps"
    assert LOGMELS, f"{FOLDER} holds no reference files of log-mels"


@pytest.mark.parametrize("name", STEPS)
def test_starting_networks(name):
    case = Case(name)
    networks = case.networks
    for owner, encoders in (("student", networks.students), ("teacher", networks.teachers)):
        for m in MODALITIES:
            case.same(encoders[m](case.views[m][0]), f"features/{m}_{owner}")
            case.same(encoders[m](case.views[m][1]), f"features_local/{m}_{owner}")
    seen = 0 if case.meta["teacher_view"] == "global" else 1
    cut = {m: [networks.teachers[m].cut(view) for view in case.views[m]] for m in MODALITIES}
    _, refined, weights = run_teachers(networks, case.settings, cut)
    for m in MODALITIES:
        encoded = networks.teachers[m].encode(case.views[m][seen], with_cls_attention=True)
        case.same(encoded.cls_attention, f"cls_attention/{m}")
        case.same(refined[m], f"refined/{m}")
        if weights and case.meta["cross_modal_attention"] == "mean":
            wanted = case.numbers[f"out/cross_attention/{m}"].mean(1)
            np.testing.assert_allclose(weights[m].numpy(), wanted, **ARRAY)
            compared[name] += 1


@pytest.mark.parametrize("name", STEPS)
def test_optimiser_steps(name):
    case = Case(name)
    networks, meta = case.networks, case.meta
    step, inputs = case.step()
    norms = {}
    for key, tensor in tensors_of(networks):
        if tensor.requires_grad:
            tensor.register_hook(lambda g, key=key: norms.__setitem__(key, g.norm().item()))
    for number in range(meta["steps"]):
        norms.clear()
        logged = step(inputs)
        for theirs in case.losses_at(number):
            got = np.mean([logged[ours].item() for ours in TERMS[theirs]])
            case.same(got, f"step{number}/{theirs}")
        if number == 0:
            for key in case.under("grad_norm"):
                case.same(norms[key], f"grad_norm/{key}")
    for key in case.under("state_after"):
        case.same(case.tensors[key], f"state_after/{key}")


@pytest.mark.parametrize("name", STEPS)
def test_float32_gives_the_losses_of_the_first_step(name):
    """The precision of real runs; one part in a thousand."""
    case = Case(name)
    case.objective.float()
    case.views = {m: [view.float() for view in case.views[m]] for m in MODALITIES}
    step, inputs = case.step()
    logged = step(inputs)
    for theirs in case.losses_at(0):
        got = np.mean([logged[ours].item() for ours in TERMS[theirs]])
        assert got == pytest.approx(case.numbers[f"out/step0/{theirs}"].item(), rel=1e-3), theirs
        compared[name] += 1


@pytest.mark.parametrize("name", LOGMELS)
def test_log_mel(name):
    numbers = np.load(FILES[name])
    meta = json.loads(str(numbers["meta"]))
    named = {ours: meta[theirs] for ours, theirs in (("n_fft", "n_fft"), ("hop", "hop_length"), ("n_mels", "n_mels"))}
    named |= {key: meta[key] for key in ("f_min", "f_max", "mean", "std")}
    logmel = LogMelSpectrogram(LogMel(**named), meta["sample_rate"])
    for key in (k.removeprefix("in/") for k in numbers.files if k.startswith("in/")):
        got = logmel(torch.from_numpy(numbers[f"in/{key}"]).float())[0].numpy()
        np.testing.assert_allclose(got, numbers[f"out/{key}"], atol=5e-4, rtol=0)
        compared[name] += 1


def test_something_was_compared_in_every_file(capsys):
    """The last test of this module: says how much the others compared."""
    with capsys.disabled():
        print(f"\nreference: {sum(compared.values())} quantities of {len(compared)} files in {FOLDER}")
    assert set(compared) == set(FILES)
