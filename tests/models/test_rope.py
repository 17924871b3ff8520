"""Backbone `rope` against an explicit computation, and what rotary positions promise."""

import math

import pytest
import torch

from xkd.errors import UserError
from xkd.models.backbones import build_encoder
from xkd.models.encoder import Backbone, ModalityShape
from xkd.models.rope import BASE, SwiGlu, patch_angles, rotate
from xkd.models.vit import Mlp

VIDEO, AUDIO = ModalityShape((2, 4, 4), (2, 3, 3), 3), ModalityShape((4, 4), (2, 6), 1)


def encoder(shape=VIDEO, depth=2):
    torch.manual_seed(0)
    return build_encoder(shape, Backbone("rope", 32, depth, 2)).double()


def view(shape, batch=2, dtype=torch.double):
    return torch.randn(
        batch, shape.channels, *(p * g for p, g in zip(shape.patch, shape.grid, strict=True)), dtype=dtype
    )


def explicit_rotation(vector, place):
    """One head of one token: the pair (q, q + C / 2) as a complex number, turned along one axis of the grid."""
    pairs, axes = len(vector) // 2, len(place)
    turned = vector.clone()
    for q in range(pairs):
        angle = place[q % axes] / BASE ** ((q // axes) / math.ceil(pairs / axes))
        z = complex(vector[q], vector[q + pairs]) * complex(math.cos(angle), math.sin(angle))
        turned[q], turned[q + pairs] = z.real, z.imag
    return turned


def rms(x, weight):
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()


@torch.no_grad()
@pytest.mark.parametrize(("shape", "cls_attention"), [(VIDEO, True), (AUDIO, False)])
def test_tokens_and_cls_attention_are_those_of_the_explicit_formulas(shape, cls_attention):
    model, x = encoder(shape), view(shape, batch=1)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.RMSNorm)):
        norm.weight.uniform_(0.5, 2)
    places = [None, *map(tuple, torch.cartesian_prod(*map(torch.arange, shape.grid)).tolist())]
    tokens = torch.cat((model.cls_token[0], model.embed(model.cut(x).values[0])))
    for block in model.blocks:
        heads = []
        q, k, v = block.attn.qkv(rms(tokens, block.norm1.weight)).chunk(3, -1)
        for head in range(2):
            part = slice(16 * head, 16 * head + 16)
            turned = [
                torch.stack([
                    vector if place is None else explicit_rotation(vector, place)
                    for vector, place in zip(rms(all_heads[:, part], norm.weight), places, strict=True)
                ])
                for all_heads, norm in ((q, block.attn.q_norm), (k, block.attn.k_norm))
            ]  # fmt: skip
            weights = torch.exp(turned[0] @ turned[1].T / 4)
            weights = weights / weights.sum(-1, keepdim=True)
            heads.append((weights, weights @ v[:, part]))
        tokens = tokens + block.attn.proj(torch.cat([out for _, out in heads], -1))
        gate, value = block.mlp.gate_and_value(rms(tokens, block.norm2.weight)).chunk(2, -1)
        tokens = tokens + block.mlp.out(gate * gate.sigmoid() * value)
    found, attention = model.encode(x, with_cls_attention=cls_attention)
    torch.testing.assert_close(found[0], rms(tokens, model.norm.weight), atol=1e-6, rtol=1e-5)
    if cls_attention:
        torch.testing.assert_close(attention[0], torch.stack([w[0, 1:] for w, _ in heads]), atol=1e-6, rtol=1e-5)
    else:
        assert attention is None


def test_attention_depends_on_the_offset_between_patches_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 24, dtype=torch.double)
    grid = (4, 5, 6)
    angles = patch_angles(grid, 12).double().unflatten(0, grid)

    def logit(one, other):
        turned = [rotate(x.view(1, 1, 1, -1), angles[place].view(1, 1, -1)) for x, place in ((q, one), (k, other))]
        return (turned[0] * turned[1]).sum().item()

    assert logit((0, 1, 2), (2, 2, 0)) == pytest.approx(logit((1, 3, 5), (3, 4, 3)), abs=1e-5)
    for other in ((3, 2, 0), (2, 3, 0), (2, 2, 1)):  # an offset along any axis matters
        assert abs(logit((0, 1, 2), (2, 2, 0)) - logit((0, 1, 2), other)) > 1e-3


@pytest.mark.parametrize("shape", [VIDEO, AUDIO])
def test_all_patches_in_another_order_give_the_same_tokens_in_that_order(shape):
    model, x = encoder(shape), view(shape)
    keep = torch.rand(2, shape.tokens).argsort(1)
    torch.testing.assert_close(model(x, keep)[:, 0], model(x)[:, 0])
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(model(x, keep)[:, 1:], model(x)[:, 1:][rows, keep])


def test_kept_patches_keep_their_places_and_do_not_see_the_others():
    model, x, keep = encoder(), view(VIDEO), torch.tensor([[0, 5, 7], [16, 2, 3]])
    moved = x.clone()
    moved[0, :, :, 8:, 8:] += 5  # patches 8 and 17
    torch.testing.assert_close(model(x, keep), model(moved, keep))
    assert not torch.allclose(model(x, keep)[0], model(x, torch.tensor([[0, 5, 8], [16, 2, 3]]))[0])


def test_a_longer_view_needs_no_interpolation():
    """A longer clip whose end is left out gives the tokens of the clip."""
    model, x = encoder(), view(VIDEO)
    longer = torch.cat((x, torch.randn_like(x)), 2)
    keep = torch.arange(VIDEO.tokens).expand(2, -1)
    torch.testing.assert_close(model(longer, keep), model(x))
    assert model(longer).shape == (2, 1 + 2 * VIDEO.tokens, 32)


@pytest.mark.parametrize("width", [96, 384, 768])
def test_the_gated_mlp_has_as_many_weights_as_that_of_vit(width):
    sizes = [sum(p.numel() for p in m.parameters() if p.ndim == 2) for m in (SwiGlu(width), Mlp(width))]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert SwiGlu(width).out.in_features % 8 == 0


def test_heads_too_narrow_for_the_axes_are_refused():
    with pytest.raises(UserError, match="width / heads is 4, but rope needs an even number of at least 6"):
        build_encoder(VIDEO, Backbone("rope", 8, 1, 2))
    assert build_encoder(AUDIO, Backbone("rope", 8, 1, 2)).width == 8


def test_autocast_needs_no_other_precision_of_its_parts(recwarn):
    model, x = encoder().float(), view(VIDEO, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x)
    torch.testing.assert_close(low.float(), model(x), atol=0.1, rtol=0.1)
    assert not [w for w in recwarn if "dtype" in str(w.message)]
