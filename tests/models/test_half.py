import pytest
import torch

from xkd.models.backbones import build_encoder
from xkd.models.encoder import Backbone, ModalityShape
from xkd.models.half import HalfWeights


def encoders():
    torch.manual_seed(0)
    both = [build_encoder(ModalityShape((4, 4), (2, 6), 1), Backbone("vit", 12, 2, 3)) for _ in range(2)]
    both[1].requires_grad_(False)
    return torch.nn.ModuleList(both)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_teachers_compute_the_same_and_with_fewer_conversions(dtype):
    both, x = encoders(), torch.randn(2, 1, 8, 24)
    weights = HalfWeights(both, dtype)
    for _ in range(2):
        with torch.autocast("cpu", dtype):
            expected = both[1](x)
            with weights:
                assert both[1].blocks[0].mlp.fc1.weight.dtype == dtype
                assert both[0].blocks[0].mlp.fc1.weight.dtype == torch.float32  # it is trained
                assert torch.equal(both[1](x), expected)
                assert {value.dtype for value in both.state_dict().values()} == {torch.float32}
        with torch.no_grad():
            both[1].blocks[0].mlp.fc1.weight += 0.1  # what teachers do between two steps


def test_the_weights_themselves_are_back_afterwards_whatever_happens():
    both = encoders()
    before = list(both.parameters())
    with pytest.raises(RuntimeError), HalfWeights(both, torch.bfloat16):
        raise RuntimeError
    assert all(one is other for one, other in zip(before, both.parameters(), strict=True))
    assert both[1].blocks[0].mlp.fc1.weight.dtype == torch.float32
