import pytest
import torch
from tiny_runs import settings, trainer

from xkd.models.backbones import build_encoder
from xkd.models.encoder import Backbone, ModalityShape
from xkd.objectives.refinement import patch_weights, refine
from xkd.training.export import save_encoders
from xkd.training.forward import run_networks, student_tokens

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
        for low, error in ((False, 1e-5), (True, 0.02)):
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                together, expected = student_tokens(encoder, whole, KEEP_BK, local), alone(encoder, whole, local)
            assert len(together) == 2
            torch.testing.assert_close(together, expected)
            gradients = [
                torch.autograd.grad(sum(of.square().sum() for of in tokens), list(encoder.parameters()))
                for tokens in (together, expected)
            ]
            for one, other in zip(*gradients, strict=True):
                assert (one - other).norm() <= error * other.norm()


def reading(kind, **training):
    chosen = settings(**training)
    head = chosen.model.head.model_copy(update={"input": kind})
    return chosen.model_copy(update={"model": chosen.model.model_copy(update={"head": head})})


READ = {
    "patches": lambda cls, patches: patches.mean(1),
    "cls": lambda cls, patches: cls,
    "both": lambda cls, patches: (cls + patches.mean(1)) / 2,
}


@pytest.mark.parametrize("kind", READ)
def test_heads_of_students_and_teachers_read_what_the_settings_say(kind):
    one = trainer(reading(kind))
    networks, views = one.learner.networks, next(iter(one.loader)).views
    outputs = run_networks(networks, one.learner.recipe.objective, views, ranks={})
    taught = {m: networks.teachers[m].encode(views[m][0], with_cls_attention=True) for m in views}
    for modality, other in (("video", "audio"), ("audio", "video")):
        tokens = [networks.students[modality](view) for view in views[modality]]
        seen = torch.cat([READ[kind](of[:, 0], of[:, 1:]) for of in tokens])
        torch.testing.assert_close(outputs.student_RK[modality], networks.student_heads[modality](seen))
        weights = patch_weights(taught[modality].cls_attention, taught[other].cls_attention, "mean")
        refined = refine(taught[modality].tokens[:, 1:], weights)
        seen = READ[kind](taught[modality].tokens[:, 0], refined)
        torch.testing.assert_close(outputs.teacher_BK[modality], networks.teacher_heads[modality](seen))


@pytest.mark.parametrize("kind", ["cls", "both"])
def test_heads_that_read_cls_train_in_low_precision_and_are_not_stored_for_features(kind, tmp_path):
    chosen = reading(kind, precision="bfloat16")
    one, plain = (trainer(recipe) for recipe in (chosen, settings(precision="bfloat16")))
    losses = [[row["loss"] for row in next(of.epochs())[1]] for of in (one, plain)]
    assert losses[0] != losses[1]
    save_encoders(one.learner.networks, chosen, 0, tmp_path)
    assert not list(tmp_path.glob("encoders/*/head.safetensors"))
