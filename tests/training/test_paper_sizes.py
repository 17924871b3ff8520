"""Steps at the paper's views, patches, masks and outputs with narrow networks; `benchmarks.equal` takes ViT-B."""

import pytest
import torch

from benchmarks import equal

STEPS = 2


@pytest.fixture(scope="module")
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def recipe(double):
    found = equal.vit_b(depth=2, batch=2)
    narrow = {"width": 24, "heads": 2}
    decoder = found.model.decoder.model_copy(update=narrow)
    head = found.model.head.model_copy(update={"hidden": 32, "bottleneck": 16})
    return found.model_copy(
        update={"model": found.model.model_copy(update={**narrow, "decoder": decoder, "head": head})}
    )


@pytest.fixture(scope="module")
def alone(recipe):
    return equal.ours(recipe, STEPS)


def test_two_processes_take_the_steps_of_one(recipe, alone):
    losses, weights = equal.difference(equal.together(recipe, STEPS, start="fork"), alone)
    assert losses < 1e-6
    assert weights < 1e-6


def test_the_steps_are_those_of_the_plain_formulas(recipe, alone):
    losses, weights = equal.difference(equal.plain(recipe, STEPS), alone)
    assert losses < 1e-6
    assert weights < 1e-6
