import torch

from xkd.models.backbones import build_encoder
from xkd.models.encoder import Backbone, ModalityShape
from xkd.training.forward import student_tokens

KEEP_BK = torch.tensor([[0, 3, 7], [1, 2, 11]])


def alone(encoder, whole, local):
    """The rows of the first local view, then those of the second, ..."""
    views = [encoder.encode_patches(view).tokens for view in local]
    return [encoder.encode_patches(whole, KEEP_BK).tokens, torch.cat(views)]


def test_views_that_pass_through_an_encoder_together_come_out_as_if_alone():
    torch.manual_seed(0)
    for arch in ("vit", "rope"):
        encoder = build_encoder(ModalityShape((4, 4), (2, 6), 1), Backbone(arch, 24, 2, 2))
        whole, *local = (encoder.cut(torch.randn(2, 1, 8, frames)) for frames in (24, 12, 12, 12))
        with torch.autocast("cpu", torch.bfloat16):
            together, expected = student_tokens(encoder, whole, KEEP_BK, local), alone(encoder, whole, local)
        assert len(together) == 2
        torch.testing.assert_close(together, expected)
        gradients = [
            torch.autograd.grad(sum(of.square().sum() for of in tokens), list(encoder.parameters()))
            for tokens in (together, expected)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one - other).norm() <= 0.02 * other.norm()


def test_in_float32_on_a_cpu_each_view_goes_alone():
    encoder = build_encoder(ModalityShape((4, 4), (2, 6), 1), Backbone("vit", 24, 1, 2))
    whole, *local = (encoder.cut(torch.randn(2, 1, 8, frames)) for frames in (24, 12, 12))
    assert [of.shape for of in student_tokens(encoder, whole, KEEP_BK, local)] == [(2, 4, 24), (2, 7, 24), (2, 7, 24)]
