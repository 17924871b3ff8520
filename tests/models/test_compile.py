"""Networks are single graphs to torch.compile: nothing in them makes it go back to Python, or wait for a GPU."""

import pytest
import torch

from xkd.models.backbones import build_encoder
from xkd.models.decoder import PatchDecoder
from xkd.models.encoder import Backbone, ModalityShape

SHAPE = ModalityShape((2, 4, 4), (2, 3, 3), 3)
KEEP_BK = torch.tensor([[0, 3, 7], [1, 2, 17]])


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(0)
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, backend="eager", fullgraph=True)


def test_a_vit_is_one_graph_with_attention_and_for_several_views():
    encoder = build_encoder(SHAPE, Backbone("vit", 24, 1, 2))
    whole, local = (encoder.cut(torch.randn(2, 3, 4, size, size)) for size in (12, 8))
    tokens, attention = compiled(encoder.encode_patches)(whole, None, True)
    assert attention.shape == (2, 2, 18)
    torch.testing.assert_close(tokens, encoder.encode_patches(whole).tokens)
    kept, others = compiled(encoder.encode_views)([(whole, KEEP_BK), (local, None)])
    torch.testing.assert_close(kept, encoder.encode_patches(whole, KEEP_BK).tokens)
    torch.testing.assert_close(others, encoder.encode_patches(local).tokens)


def test_a_rotary_transformer_is_one_graph():
    encoder = build_encoder(SHAPE, Backbone("rope", 24, 1, 2))
    whole = encoder.cut(torch.randn(2, 3, 4, 12, 12))
    kept = compiled(encoder.encode_patches)(whole, KEEP_BK).tokens
    torch.testing.assert_close(kept, encoder.encode_patches(whole, KEEP_BK).tokens)


def test_a_decoder_is_one_graph():
    decoder = PatchDecoder((2, 3, 3), 96, 24, 16, 1, 2)
    visible_BSD = torch.randn(2, 4, 24)
    hidden_BM = torch.stack([torch.tensor([n for n in range(18) if n not in keep]) for keep in KEEP_BK.tolist()])
    predicted_BMP = decoder(visible_BSD, KEEP_BK, hidden_BM)
    torch.testing.assert_close(compiled(decoder)(visible_BSD, KEEP_BK, hidden_BM), predicted_BMP)
