"""Encoders as parts of other people's networks: tokens, heads, gradients, autocast, compiled, and in pairs."""

import numpy as np
import pytest
import torch
from encoder_folders import write_encoders
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from xkd import load_encoder, load_pair
from xkd.downstream.probes import concatenate
from xkd.encoders import folder
from xkd.errors import UserError

RATE = 16000
MODALITIES = ("video", "audio")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("run"))


@pytest.fixture
def load(run):
    return lambda modality, **options: load_encoder(run / "encoders" / f"{modality}_student", **options)


def clips(modality: str, count: int = 2) -> tuple:
    """Arguments of an encoder: raw clips, and their rate if they are sound."""
    draws = np.random.default_rng(0)
    if modality == "video":
        return (torch.from_numpy(draws.integers(0, 256, (count, 8, 40, 48, 3), dtype=np.uint8)),)
    return torch.from_numpy(draws.uniform(-0.5, 0.5, (count, 15360)).astype(np.float32)), RATE


@pytest.mark.parametrize("modality", MODALITIES)
def test_features_are_to_the_bit_those_of_the_network(load, modality):
    model, batch = load(modality), clips(modality)
    with torch.inference_mode():
        expected = model.encoder(model.view(*batch))[:, 1:].mean(1)
    assert torch.equal(model(*batch), expected)
    assert not model(*batch).requires_grad
    single = (batch[0][0].numpy(), *batch[1:])
    assert model(*single).shape == (24,)
    assert model.tokens(*single).shape == (1, *model.tokens(*batch).shape[1:])


@pytest.mark.parametrize(("modality", "patches"), [("video", 64), ("audio", 60)])
def test_tokens_and_what_a_head_makes_of_them(run, load, modality, patches):
    model, batch = load(modality), clips(modality)
    tokens = model.tokens(*batch)
    assert tokens.shape == (2, 1 + patches, 24)
    assert torch.equal(model.forward_head(tokens), model(*batch))
    with torch.no_grad():
        tokens[:, 0] += 1  # CLS, which features do not see
    assert torch.equal(model.forward_head(tokens), model(*batch))
    headed = load(modality, head=True)
    head = folder.load_head(run / "encoders" / f"{modality}_student")
    for x in (tokens, model(*batch)):
        assert torch.equal(headed.forward_head(x), head(model(*batch)))
        assert torch.equal(headed.forward_head(x, pre_logits=True), model(*batch))


def test_a_head_that_is_not_there_is_an_error(run, tmp_path):
    folder.save(*folder.load(run / "encoders" / "audio_student"), tmp_path)
    with pytest.raises(UserError, match=r"no head\.safetensors there; load this encoder without"):
        load_encoder(tmp_path, head=True)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_frozen_and_a_finetuned_backbone(load, modality):
    for finetuned in (False, True):
        backbone = load(modality).requires_grad_(finetuned)
        top = nn.Linear(24, 3)
        top(backbone(*clips(modality))).sum().backward()
        assert top.weight.grad.any()
        has_gradient = [parameter.grad is not None for parameter in backbone.parameters()]
        assert all(has_gradient) if finetuned else not any(has_gradient)
        with torch.no_grad():
            assert not backbone(*clips(modality)).requires_grad


def test_the_gradient_of_samples_is_that_of_differences(load):
    model, (samples, rate) = load("audio"), clips("audio", 1)
    weights, direction = torch.randn(24), torch.randn_like(samples)
    samples.requires_grad_()
    (model(samples, rate) @ weights).sum().backward()
    step = 1e-3
    with torch.no_grad():
        up, down = ((model(samples + sign * step * direction, rate) @ weights).sum() for sign in (1, -1))
    assert (samples.grad * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=0.02)


class _Calls(TorchDispatchMode):
    """Lists the operations of which a GPU's results are waited for."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_dispatch__(self, function, _types, arguments=(), options=None):
        if function.overloadpacket in (torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense):
            self.waiting.append(str(function))
        return function(*arguments, **options or {})


@pytest.mark.parametrize("modality", MODALITIES)
def test_training_waits_for_no_gpu(load, modality):
    def waits(model):
        with _Calls() as calls:
            model(*clips(modality))
            model.tokens(*clips(modality))
        return bool(calls.waiting)

    assert waits(load(modality)), "evaluation looks for values that are not finite"
    assert not waits(load(modality).requires_grad_())
    assert not waits(load(modality).train())


@pytest.mark.parametrize("modality", MODALITIES)
def test_autocast_runs_the_network_and_not_the_preprocessing(load, modality):
    model, batch = load(modality).requires_grad_(), clips(modality)
    exact, view = model(*batch), model.view(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(*batch)
        assert torch.equal(model.view(*batch), view)
    rough.float().sum().backward()
    assert not torch.equal(rough.float(), exact)
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_compiled_encoder_is_the_same(load, modality):
    model, batch = load(modality), clips(modality)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(*batch), model(*batch))
    model.requires_grad_()
    compiled(*batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pair_gives_what_probes_of_both_read(run):
    (frames,), sound = clips("video"), clips("audio")
    folders = [run / "encoders" / f"{modality}_student" for modality in MODALITIES]
    for pair in (load_pair(run), load_pair(*folders), load_pair(*reversed(folders))):
        joint, video, audio = pair(frames, *sound)
        assert torch.equal(video, pair.video(frames))
        assert torch.equal(audio, pair.audio(*sound))
        np.testing.assert_allclose(joint, concatenate(video.numpy(), audio.numpy()), atol=1e-6)
    assert pair(frames[0], sound[0][0], RATE).joint.shape == (48,)
    with pytest.raises(UserError, match="not of equally many clips"):
        pair(frames[:1], *sound)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "no folder; a pair takes one of video and one of audio"),
        (["encoders/video_student", "encoders/video_student"], {}, "encoders of video and video; a pair takes"),
        ([""], {"owner": "teacher"}, "video_teacher/config.json: missing"),
    ],
)
def test_what_is_no_pair_is_refused(run, names, options, message):
    with pytest.raises(UserError, match=message):
        load_pair(*(run / name for name in names), **options)
