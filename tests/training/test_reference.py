"""Three optimiser steps against numbers computed with the released implementation in float64."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xkd.models.networks import MODALITIES, ModalityShape, Networks, Sizes
from xkd.training.losses import Objective
from xkd.training.optimiser import clip_each, make_optimiser

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = ("xkd-global-7", "xkd-local-7", "mas-global-7", "mats-global-7")
TERMS = {
    "reconstruction_video": "vid_recon_loss",
    "reconstruction_audio": "aud_recon_loss",
    "alignment_students": "as2vs_align_loss",
    "alignment_teachers": "vt2at_align_loss",
    "distillation_audio": "vt2as_kd_loss",
    "distillation_video": "at2vs_kd_loss",
    "loss": "loss",
}
SHORT = {"video": "vid", "audio": "aud"}


def key_of(modality, part, name):
    """Our parameter name to the reference's."""
    if part == "head":
        table = {"layer1": "mlp.0", "norm": "mlp.1", "layer2": "mlp.3", "layer3": "mlp.6"}
        if name == "directions":
            return "head.last_layer.weight_v"
        layer, kind = name.split(".")
        return f"head.{table[layer]}.{kind}"
    if part == "decoder":
        table = {"positions": "dec_pos_embed", "mask_token": "mask_token"}
        if name in table:
            return table[name]
        return (
            name.replace("project.", "mid_proj.").replace("predict.", "out_proj.").replace("blocks.", "decoder.blocks.")
        )
    embed = "cuboid_embed.proj." if modality == "video" else "patch_embed.proj."
    name = name.replace("embed.", embed) if name.startswith("embed.") else name
    name = name.replace("norm.", "encoder_norm.", 1) if name.startswith("norm.") else name
    name = "enc_pos_embed" if name == "positions" else name
    return "backbone." + (f"encoder.{name}" if name.startswith("blocks.") else name)


def parameters(networks):
    """Yields (reference key, parameter) for every tensor, shared ones under each modality."""
    for m in MODALITIES:
        for owner, encoders, heads in (
            ("student", networks.students, networks.student_heads),
            ("teacher", networks.teachers, networks.teacher_heads),
        ):
            for name, p in encoders[m].named_parameters():
                yield f"{SHORT[m]}_{owner}.{key_of(m, 'encoder', name)}", p
            for name, p in heads[m].named_parameters():
                yield f"{SHORT[m]}_{owner}.{key_of(m, 'head', name)}", p
        for name, p in networks.decoders[m].named_parameters():
            yield f"{SHORT[m]}_ae.{key_of(m, 'decoder', name)}", p


class Case:
    def __init__(self, name):
        self.numbers = np.load(REFERENCE / f"{name}.npz")
        self.meta = meta = json.loads(str(self.numbers["meta"]))
        spec = meta["spec"]
        shapes = {
            "video": ModalityShape((spec["vt"], *spec["vp"]), (spec["t"] // spec["vt"], 4, 4), 3),
            "audio": ModalityShape(tuple(spec["ap"]), (4, 6), 1),
        }
        share = {"xkd": "none", "mas": "students", "mats": "all"}[meta["variant"]]
        d, p = meta["decoder"], meta["projector"]
        self.networks = Networks(
            shapes,
            Sizes(
                24,
                2,
                3,
                (d["embed_dim"], d["depth"], d["num_heads"]),
                (p["hidden_dim"], p["bottleneck_dim"], p["out_dim"]),
                share,
            ),
            MODALITIES,
            teachers=True,
        ).double()
        self.settings = SimpleNamespace(
            reconstruction=5.0,
            distillation=1.0,
            alignment=1.0,
            mask_video=0.85,
            mask_audio=0.8,
            refinement="mean",
            teacher_view=meta["teacher_view"],
            discrepancy="mmd",
            student_temperature=0.1,
            centre_momentum=0.9,
        )
        with torch.no_grad():
            for key, parameter in parameters(self.networks):
                value = torch.from_numpy(self.numbers[f"state/{key}"]).double()
                parameter.copy_(value.reshape(parameter.shape))
        self.objective = Objective(self.networks, self.settings, p["out_dim"]).double()
        self.views = {m: [self.tensor(f"in/{m}/{v}") for v in (0, 1)] for m in MODALITIES}
        self.ranks = {m: self.tensor(f"in/noise/{m}") for m in MODALITIES}

    def tensor(self, key):
        return torch.from_numpy(self.numbers[key]).double()

    def step(self, optimiser):
        temperatures = self.meta["teacher_temperature"]
        losses = self.objective(self.views, self.ranks, temperatures)
        optimiser.zero_grad()
        losses.total.backward()
        norms = {key: p.grad.norm().item() for key, p in parameters(self.networks) if p.grad is not None}
        clip_each(self.networks.clipped_parameters(), self.meta["clip_grad_norm_per_parameter"])
        optimiser.step()
        self.networks.update_teachers(self.meta["ema"])
        return losses, norms


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return Case(request.param)


def test_starting_networks_give_the_reference_outputs(request):
    for name in CASES:
        case = Case(name)
        numbers = case.numbers
        for m in MODALITIES:
            for owner, encoders in (("student", case.networks.students), ("teacher", case.networks.teachers)):
                for index, folder in enumerate(("features", "features_local")):
                    got = encoders[m](case.views[m][index]).detach().numpy()
                    np.testing.assert_allclose(got, numbers[f"out/{folder}/{m}_{owner}"], atol=2e-6)
        seen = 0 if case.meta["teacher_view"] == "global" else 1
        cut = {m: [case.networks.teachers[m].cut(view) for view in case.views[m]] for m in MODALITIES}
        _, weights = case.objective.teacher_tokens_and_weights(cut)
        refined = case.objective.refined_tokens(cut)
        for m in MODALITIES:
            got = case.networks.teachers[m].encode(case.views[m][seen], with_cls_attention=True).cls_attention
            np.testing.assert_allclose(got.numpy(), numbers[f"out/cls_attention/{m}"], atol=1e-6)
            np.testing.assert_allclose(weights[m].numpy(), numbers[f"out/cross_attention/{m}"].mean(1), atol=1e-6)
            np.testing.assert_allclose(refined[m].numpy(), numbers[f"out/refined/{m}"], atol=1e-5)


def test_three_steps_follow_the_reference(case):
    meta = case.meta["optimizer"]
    optimiser = make_optimiser(case.networks, meta["lr"], tuple(meta["betas"]), meta["weight_decay"])
    for step in range(case.meta["steps"]):
        losses, norms = case.step(optimiser)
        for ours, theirs in TERMS.items():
            assert losses.logged[ours].item() == pytest.approx(
                case.numbers[f"out/step{step}/{theirs}"].item(), rel=1e-8
            ), (step, ours)
        if step == 0:
            listed = {k.removeprefix("out/grad_norm/") for k in case.numbers.files if k.startswith("out/grad_norm/")}
            for key in listed:
                assert norms[key] == pytest.approx(case.numbers[f"out/grad_norm/{key}"].item(), rel=1e-7, abs=1e-12), (
                    key
                )
    now = dict(parameters(case.networks))
    for key in (k for k in case.numbers.files if k.startswith("out/state_after/")):
        name = key.removeprefix("out/state_after/")
        if name.endswith("center"):
            student = "audio" if name.startswith("vt2as") else "video"
            got = case.objective.distillation[student].centre
        else:
            got = now[name]
        np.testing.assert_allclose(
            got.detach().numpy().reshape(case.numbers[key].shape), case.numbers[key], atol=1e-9, err_msg=name
        )
