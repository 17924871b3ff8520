"""The attentive probe of frozen patch tokens."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from xkd.downstream.attentive import AttentiveClassifier, Tokens, train_attentive
from xkd.errors import UserError
from xkd.settings import Attentive

SETTINGS = Attentive(epochs=30, learning_rate=5e-3)
CLASSES, N, D = 4, 12, 8
LABELS = np.array(["cat", "dog", "emu", "owl"])


def clips(count: int, seed: int, answers: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (clips, N, D) that show a class each, and the class (clips,) of the one token with a mark."""
    generator = np.random.default_rng(seed)
    shown = generator.integers(CLASSES, size=(count, N))
    marked = generator.integers(N, size=count)
    if answers is not None:
        shown[np.arange(count), marked] = answers
    tokens = 0.1 * generator.normal(size=(count, N, D))
    tokens[..., :CLASSES] += np.eye(CLASSES)[shown]
    tokens[np.arange(count), marked, CLASSES] += 1
    return tokens, shown[np.arange(count), marked]


def of(tokens: np.ndarray) -> Tokens:
    return Tokens([tokens.reshape(len(tokens), 1, -1).astype(np.float16)], np.arange(len(tokens)), D)


def accuracy(train, answers, test, expected, settings=SETTINGS) -> float:
    scores, classes = train_attentive(train, LABELS[answers], test, settings, 2, 0)
    return 100 * (classes[scores.argmax(1)] == LABELS[expected]).mean()


def test_one_token_of_many_is_found_which_the_mean_hides():
    (train, answers), (test, expected) = clips(400, 0), clips(300, 1)
    linear = LogisticRegression(max_iter=1000).fit(train.mean(1), answers)
    assert 100 * linear.score(test.mean(1), expected) < 60
    assert accuracy([of(train)], answers, [of(test)], expected) > 90


def test_both_modalities_tell_what_neither_tells_alone():
    """The first bit of the label lies in one modality, the second in the other."""
    drawn = [np.random.default_rng(seed).integers(2, size=(2, 300)) for seed in (0, 1)]
    parts = [[of(clips(300, 10 * n + m, bits[m])[0]) for m in range(2)] for n, bits in enumerate(drawn)]
    answers, expected = (2 * bits[0] + bits[1] for bits in drawn)
    assert accuracy(parts[0], answers, parts[1], expected) > 90
    assert accuracy(parts[0][:1], answers, parts[1][:1], expected) < 65


def test_views_of_test_clips_are_averaged_and_epochs_take_turns_with_those_of_training():
    (train, answers), (test, _) = clips(40, 0), clips(9, 1)
    settings = SETTINGS.model_copy(update={"epochs": 2})

    def scores(train, test):
        return train_attentive(train, LABELS[answers], test, settings, 2, 0)[0]

    def joined(*parts):
        return Tokens([part.parts[0] for part in parts], parts[0].rows, D)

    one, two, nothing = of(test), of(test[::-1]), of(np.full_like(train, np.nan))
    each = [scores([of(train)], [part]) for part in (one, two)]
    np.testing.assert_allclose(scores([of(train)], [joined(one, two)]), np.mean(each, axis=0), atol=1e-6)
    # The third view is the first one's turn again; nobody reads it in two epochs.
    turns = scores([joined(of(train), of(train), nothing)], [one])
    np.testing.assert_array_equal(turns, each[0])
    with pytest.raises(UserError, match="epoch 1: the loss is not finite"):
        scores([joined(of(train), nothing)], [one])


def test_a_crop_of_three_takes_the_audio_of_its_moment():
    (train, answers), (test, _) = clips(40, 0), clips(6, 1)
    crops = Tokens([np.tile(of(test).parts[0], (1, 6, 1))], np.arange(6), D)
    moments = Tokens([np.concatenate([of(part).parts[0] for part in (test, test[::-1])], 1)], np.arange(6), D)
    settings = SETTINGS.model_copy(update={"epochs": 1})

    def scores(*tested):
        return train_attentive([of(train)] * 2, LABELS[answers], list(tested), settings, 2, 0)[0]

    each = [scores(of(test), of(part)) for part in (test, test[::-1])]
    np.testing.assert_allclose(scores(crops, moments), np.mean(each, axis=0), atol=1e-6)


def test_a_query_gathers_the_tokens_as_the_formula_says():
    """One head: softmax(q Wq (x Wk)^T / sqrt(D)) x Wv Wo, then the norm and the linear layer."""
    torch.manual_seed(0)
    model = AttentiveClassifier([(torch.ones(D), torch.full((D,), 2.0))], heads=1, queries=2, classes=3).eval()
    x, pool = torch.randn(5, N, D), model.pools[0]
    z, attention = (x - 1) / 2, pool.attention
    (wq, wk, wv), (bq, bk, bv) = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = pool.queries @ wq.T + bq, z @ wk.T + bk, z @ wv.T + bv
    gathered = attention.out_proj((q @ k.transpose(1, 2) / D**0.5).softmax(-1) @ v)
    expected = model.layer(torch.nn.functional.layer_norm(gathered, (D,)).reshape(5, 2 * D))
    torch.testing.assert_close(model([x]), expected)


def test_repeats_and_depends_on_its_seed():
    (train, answers), (test, _) = clips(40, 0), clips(9, 1)
    settings = SETTINGS.model_copy(update={"epochs": 2, "queries": 2})
    one, again, other = (
        train_attentive([of(train)], LABELS[answers], [of(test)], settings, 2, seed)[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_several_labels_are_answered_one_by_one():
    generator = np.random.default_rng(0)
    have = generator.random((300, 3)) < 0.4
    have[~have.any(1), 0] = True
    tokens = 0.1 * generator.normal(size=(300, 3, D))
    tokens[:, np.arange(3), np.arange(3)] += have
    labels = np.array([";".join(LABELS[:3][row]) for row in have])
    logits, classes = train_attentive([of(tokens[:200])], labels[:200], [of(tokens[200:])], SETTINGS, 2, 0)
    assert classes.tolist() == ["cat", "dog", "emu"]
    assert ((logits > 0) == have[200:]).mean() > 0.95
