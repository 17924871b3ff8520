"""Mixup, cutmix, erasing, RandAugment, masks, dropout and several labels of finetuning."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from downstream_fakes import Loader, TinyEncoder, finetuned, rows

from xkd.downstream.finetune_augment import augment, mix
from xkd.downstream.finetune_learner import Classifier, Classifiers, rates
from xkd.settings import Finetune

TARGET = torch.eye(4)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def constant(clips=4, shape=(3, 2, 10, 10)):
    """Clip i holds the value i."""
    return torch.arange(clips).float().view(-1, *[1] * len(shape)).expand(-1, *shape).clone()


def test_nothing_changes_by_default():
    settings, view = Finetune(), torch.randn(4, 3, 2, 10, 10)
    before = torch.get_rng_state()
    assert augment(view, "video", settings) is view
    assert augment(view, "audio", settings) is view
    assert mix(view, TARGET, settings)[0] is view
    assert torch.equal(torch.get_rng_state(), before)


def test_mixup_mixes_pictures_and_labels_in_one_proportion():
    shares = []
    for _ in range(300):
        view, target = mix(constant(), TARGET, Finetune(mixup=0.6))
        share = target[1, 1].item()
        shares.append(share)
        torch.testing.assert_close(target.sum(1), torch.ones(4))
        torch.testing.assert_close(view[1], torch.full_like(view[1], share * 1 + (1 - share) * 0))
        torch.testing.assert_close(target[1, 0], torch.tensor(1 - share))
    # Beta(0.6, 0.6): mean 1/2, variance 1/4 / (2 * 0.6 + 1).
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * 0.337 / np.sqrt(300))
    assert np.var(shares) == pytest.approx(0.25 / 2.2, rel=0.25)


def test_cutmix_pastes_a_rectangle_and_counts_its_area():
    for _ in range(100):
        view, target = mix(constant(), TARGET, Finetune(cutmix=1.0))
        pasted = (view[2] == 1).float().mean().item()
        assert set(view[2].unique().tolist()) <= {1.0, 2.0}
        assert target[2, 1].item() == pytest.approx(pasted, abs=1e-6)
        assert target[2].sum().item() == pytest.approx(1)
        inside = (view[2, 0, 0] == 1).nonzero()
        if len(inside):
            (top, left), (bottom, right) = inside.min(0).values, inside.max(0).values
            assert len(inside) == (bottom - top + 1) * (right - left + 1)
        assert torch.equal(view[2, 0, 0], view[2, 2, 1])  # the same place in every picture and colour


def test_both_take_turns():
    cut = 0
    for _ in range(400):
        view, _ = mix(constant(), TARGET, Finetune(mixup=0.6, cutmix=0.5))
        cut += set(view[3].unique().tolist()) <= {2.0, 3.0}
    assert abs(cut - 200) < 4 * 10 + 20  # mixup with a share of nearly 0 or 1 counts too


def test_erasing_and_masks_leave_most_of_a_clip():
    films = augment(torch.ones(200, 3, 2, 16, 16), "video", Finetune(erasing=0.25))
    touched = (films == 0).flatten(1).any(1).float().mean().item()
    assert touched == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 200))
    sounds = augment(torch.ones(50, 1, 40, 96), "audio", Finetune(mel_masks=(2, 10), time_masks=(2, 20)))
    bands, columns = (sounds == 0).all(3).sum(2), (sounds == 0).all(2).sum(2)
    assert bands.max() <= 2 * 10
    assert columns.max() <= 2 * 20
    assert bands.float().mean() > 2
    assert columns.float().mean() > 4
    hidden = (sounds == 0)[:, 0]
    whole = hidden.all(2, keepdim=True) | hidden.all(1, keepdim=True)
    assert torch.equal(hidden, whole.expand_as(hidden))


def test_rand_augment_changes_all_pictures_of_a_film_alike():
    film = torch.rand(6, 3, 1, 16, 16).expand(-1, -1, 4, -1, -1)
    changed = augment(film, "video", Finetune(rand_augment=(4, 7)))
    assert changed.shape == film.shape
    assert not torch.allclose(changed, film)
    for t in range(1, 4):
        torch.testing.assert_close(changed[:, :, t], changed[:, :, 0])


def test_unit_features():
    model = Classifier(TinyEncoder(), 3, seed=0, unit_features=True)
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), model.head(F.normalize(model.encoder.features(x), dim=-1)))


def test_dropout_hides_features_of_each_step_anew():
    loader = Loader(rows(48), 8)
    one, batch = Classifiers({"video": TinyEncoder()}, loader, Finetune(dropout=0.25), 0), next(iter(loader))
    model, view = one.models["video"], batch.views["video"][0]
    kept = [one.inputs(batch, step).kept_BD["video"] for step in (0, 1, 1)]
    assert kept[0].unique().tolist() == pytest.approx([0, 4 / 3])
    assert not torch.equal(kept[0], kept[1])
    assert torch.equal(kept[1], kept[2])
    torch.testing.assert_close(model(view, kept[0]), model.head(kept[0] * model.encoder.features(view)))


def test_all_of_it_learns_and_repeats():
    settings = Finetune(epochs=15, learning_rate=0.01, mixup=0.3, dropout=0.2, unit_features=True)
    models = [finetuned({"video": TinyEncoder()}, Loader(rows(48), 8, 0.3), settings, 0)["video"] for _ in range(2)]
    x = torch.eye(3)
    assert torch.equal(models[0](x), models[1](x))
    assert models[0](x).argmax(1).tolist() == [0, 1, 2]


HAS = torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])


def test_several_labels_are_learned_as_yes_or_no_each():
    class Joined(Loader):
        """Labels of the first and second, second and third, first and third class in the place of three."""

        def __iter__(self):
            for batch in super().__iter__():
                yield SimpleNamespace(**{**vars(batch), "labels": HAS[batch.labels]})

    loader = Joined(rows(48), 8, 0.1)
    model = finetuned({"video": TinyEncoder()}, loader, Finetune(epochs=30, learning_rate=0.01), 0)["video"]
    says = model(torch.eye(3)) > 0
    assert torch.equal(says, HAS == 1)


def test_time_warp_moves_columns_by_no_more_than_asked():
    columns = torch.arange(100.0).expand(2, 1, 8, 100)
    moved = []
    for _ in range(100):
        warped = augment(columns, "audio", Finetune(time_warp=10))
        assert warped.shape == columns.shape
        assert (warped[..., 1:] >= warped[..., :-1]).all()
        assert torch.equal(warped[0, 0, 0], warped[0, 0, 7])
        moved.append((warped - columns).abs().max().item())
    assert max(moved) <= 11
    assert np.mean(moved) > 3
    same = torch.full((2, 1, 8, 100), 3.0)
    torch.testing.assert_close(augment(same, "audio", Finetune(time_warp=10)), same)


def test_fixed_and_cosinerates():
    fixed, falling = Finetune(schedule="fixed"), Finetune(learning_rate=1e-3, last_learning_rate=1e-4, warmup=0.1)
    assert rates(fixed, 50).tolist() == [1.0] * 50
    shares = rates(falling, 1000)
    assert shares[0] == 0
    assert shares.max() == pytest.approx(1)
    assert shares[-1] == pytest.approx(0.1, abs=1e-3)
