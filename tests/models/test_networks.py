import pytest
import torch

from xkd.modalities import MODALITIES
from xkd.models.encoder import Backbone, ModalityShape
from xkd.models.networks import Networks, NetworkSizes
from xkd.models.vit import Attention

SHAPES = {"video": ModalityShape((2, 4, 4), (2, 3, 3), 3), "audio": ModalityShape((4, 4), (2, 6), 1)}

BASE, BESIDE = Backbone("vit", 768, 12, 12), ((384, 4, 12), (2048, 256, 8192))


def make(share="none", teachers=True):
    torch.manual_seed(0)
    return Networks(SHAPES, NetworkSizes(Backbone("vit", 12, 2, 3), (8, 1, 2), (10, 6, 9), share), MODALITIES, teachers)


def pointers(module):
    return {p.data_ptr() for p in module.parameters()}


def block_pointers(encoder):
    return pointers(encoder.blocks)


def views(batch=2):
    return {"video": torch.randn(batch, 3, 4, 12, 12), "audio": torch.randn(batch, 1, 8, 24)}


@pytest.mark.parametrize(
    ("share", "one_student", "one_teacher"), [("none", False, False), ("students", True, False), ("all", True, True)]
)
def test_variants_share_transformer_blocks_and_nothing_else(share, one_student, one_teacher):
    networks = make(share)
    for encoders, shared in ((networks.students, one_student), (networks.teachers, one_teacher)):
        video, audio = encoders["video"], encoders["audio"]
        assert (block_pointers(video) == block_pointers(audio)) == shared
        outside = [pointers(e) - block_pointers(e) for e in (video, audio)]
        assert not outside[0] & outside[1]


@pytest.mark.parametrize("share", ["none", "students", "all"])
def test_teachers_start_as_exact_copies_without_storage_or_gradients_of_the_students(share):
    networks = make(share).train()
    x = views()
    assert not pointers(networks.teachers) & pointers(networks.students)
    assert not any(p.requires_grad for p in [*networks.teachers.parameters(), *networks.teacher_heads.parameters()])
    assert not networks.teachers.training
    assert networks.students.training
    for m in MODALITIES:
        torch.testing.assert_close(networks.teachers[m](x[m]), networks.students[m](x[m]), rtol=0, atol=0)


@pytest.mark.parametrize(("share", "times"), [("none", 1), ("students", 1), ("all", 2)])
def test_ema_moves_each_teacher_and_the_shared_one_once_per_modality(share, times):
    networks = make(share)
    with torch.no_grad():
        for p in [*networks.students.parameters(), *networks.student_heads.parameters()]:
            p.fill_(1.0)
        for p in [*networks.teachers.parameters(), *networks.teacher_heads.parameters()]:
            p.fill_(0.0)
    networks.update_teachers({"video": 0.9, "audio": 0.8})
    block = networks.teachers["video"].blocks[0].mlp.fc1.weight
    expected = {1: 0.1, 2: 1 - 0.9 * 0.8}[times]
    torch.testing.assert_close(block, torch.full_like(block, expected))
    audio_own, head = networks.teachers["audio"].cls_token, networks.teacher_heads["audio"].layer1.weight
    torch.testing.assert_close(audio_own, torch.full_like(audio_own, 0.2))
    torch.testing.assert_close(head, torch.full_like(head, 0.2))


def test_kept_patches_are_encoded_as_if_the_others_did_not_exist():
    networks = make()
    x = views()["audio"]
    keep = torch.tensor([[0, 5, 7], [11, 2, 3]])
    moved = x.clone()
    hidden = [n for n in range(12) if n not in (0, 5, 7)]
    for n in hidden:  # change every hidden patch of clip 0: its visible tokens must not notice
        m, f = divmod(n, 6)
        moved[0, 0, 4 * m : 4 * m + 4, 4 * f : 4 * f + 4] += 5
    encoder = networks.students["audio"]
    torch.testing.assert_close(encoder(x, keep), encoder(moved, keep))
    assert encoder(x, keep).shape == (2, 4, 12)


def test_decoder_puts_each_visible_token_at_its_own_place():
    decoder = make().decoders["video"]
    visible, keep = torch.randn(2, 3, 12), torch.tensor([[1, 4], [0, 17]])
    hidden = torch.tensor([[n for n in range(18) if n not in row] for row in keep.tolist()])
    out = decoder(visible, keep, hidden)
    assert out.shape == (2, 16, 2 * 4 * 4 * 3)
    swapped = visible[:, [0, 2, 1]]
    torch.testing.assert_close(decoder(swapped, keep.flip(1), hidden), out)
    assert not torch.allclose(decoder(swapped, keep, hidden), out)


def test_decoder_predicts_each_hidden_patch_in_the_order_asked_for():
    decoder = make().decoders["video"]
    visible, keep = torch.randn(1, 3, 12), torch.tensor([[1, 4]])
    hidden = torch.tensor([[n for n in range(18) if n not in (1, 4)]])
    torch.testing.assert_close(decoder(visible, keep, hidden.flip(1)), decoder(visible, keep, hidden).flip(1))
    assert not torch.allclose(decoder(visible, keep, hidden)[0, 0], decoder(visible, keep, hidden)[0, 1])


def test_cls_attention_leaves_out_cls_and_belongs_to_the_last_block():
    encoder = make().teachers["video"]
    x = views()["video"]
    tokens, attention = encoder.encode(x, with_cls_attention=True)
    assert attention.shape == (2, 3, 18)
    assert (attention.sum(-1) < 1).all()
    torch.testing.assert_close(tokens, encoder(x))


def test_parameters_of_the_released_base_encoder():
    # ViT-B without qkv biases: 12 blocks of 12 d^2 + 10 d, final norm 2 d; then embedding, CLS and positions.
    shapes = {"video": ModalityShape((4, 16, 16), (8, 7, 7), 3)}
    encoder = Networks(shapes, NetworkSizes(BASE, *BESIDE), (), False).students["video"]
    d, patch, tokens = 768, 4 * 16 * 16 * 3, 392
    blocks = 12 * (12 * d * d + 10 * d)
    assert sum(p.numel() for p in encoder.parameters()) == blocks + 2 * d + (patch + 1) * d + d + (tokens + 1) * d


@pytest.mark.parametrize(
    ("share", "students", "teachers"), [("none", 173.20, 173.20), ("students", 88.17, 173.20), ("all", 88.17, 88.17)]
)
def test_parameters_of_each_variant_in_millions(share, students, teachers):
    """ViT-B: 87.69 in a video and 85.51 in an audio encoder; 85.03 of each are transformer blocks, shared or not."""
    shapes = {"video": ModalityShape((4, 16, 16), (8, 7, 7), 3), "audio": ModalityShape((4, 16), (20, 28), 1)}
    with torch.device("meta"):
        networks = Networks(shapes, NetworkSizes(BASE, *BESIDE, share), MODALITIES, True)
    single = [sum(p.numel() for p in networks.students[m].parameters()) / 1e6 for m in MODALITIES]
    assert single == pytest.approx([87.69, 85.51], abs=0.005)
    for encoders, millions in ((networks.students, students), (networks.teachers, teachers)):
        assert sum(p.numel() for p in encoders.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_fused_attention_equals_the_plain_formula():
    torch.manual_seed(0)
    attention, x = Attention(12, 3).double(), torch.randn(2, 7, 12, dtype=torch.double)
    q, k, v = (part.view(2, 7, 3, 4).transpose(1, 2) for part in attention.qkv(x).split(12, dim=-1))
    weights = torch.exp(q @ k.mT / 2)
    weights = weights / weights.sum(-1, keepdim=True)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 7, 12))
    got, of_cls = attention(x.flatten(0, 1), [(2, 7)], with_cls_attention=True)
    torch.testing.assert_close(got.unflatten(0, (2, 7)), expected)
    torch.testing.assert_close(of_cls, weights[:, :, 0, 1:])


def test_a_view_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="cannot be cut into patches"):
        make().students["audio"](torch.randn(1, 1, 8, 23))
