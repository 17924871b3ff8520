"""One step: faults that stop it, float16, recomputation."""

import pytest
import torch
from tiny_runs import curves, same, settings, train, trainer

from xkd.errors import UserError
from xkd.models.vit import Block
from xkd.training.sharing import objective_outputs


def weights(one):
    return {name: value.clone() for name, value in one.learner.objective.state_dict().items()}


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_clip():
    good = train(trainer(settings()), stop_after=1)
    one = trainer(settings(), poisoned_step=2)
    saved = []
    with pytest.raises(UserError) as raised:
        train(one, save=saved.append)
    message = str(raised.value)
    assert "step 2: the loss is not finite" in message
    assert message.endswith("Clips: clip102")
    assert len(one.recorder.epochs) == len(saved) == 1
    for name, value in good.learner.networks.state_dict().items():
        assert torch.equal(value, one.learner.networks.state_dict()[name]), name


def test_a_clip_is_named_in_supervised_training_and_in_parts_too():
    for training in ({"mode": "supervised"}, {"accumulate": 2, "batch_size": 4}):
        with pytest.raises(UserError, match="step 1: .*Clips: clip012$"):
            train(trainer(settings(**training), poisoned_step=1))


@pytest.mark.parametrize("network", ["students", "decoders"])
def test_a_gradient_that_is_not_finite_stops_before_the_update(network):
    one = trainer(settings())
    tensor = next(getattr(one.learner.networks, network)["video"].parameters())
    tensor.register_hook(lambda gradient: gradient * (float("nan") if one.step == 1 else 1))
    before = {}
    one.loader.set_epoch(0)

    def steps():
        for batch in one.loader:
            before.update({name: p.clone() for name, p in one.learner.networks.named_parameters()})
            one.take_step(batch)
            one.batch += 1

    with pytest.raises(
        UserError, match="step 1: the gradient is not finite .* All clips of the batch: clip010, clip011"
    ):
        steps()
    assert all(torch.equal(before[name], p) for name, p in one.learner.networks.named_parameters())


def test_an_overflow_in_float16_skips_the_step_whole_and_lowers_the_scale():
    one = trainer(settings(precision="float16"))
    one.update.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)  # no overflow of its own
    next(one.learner.networks.students.parameters()).register_hook(
        lambda gradient: gradient * (float("inf") if one.step == 1 else 1)
    )
    seen, scales = [], []
    one.loader.set_epoch(0)
    for batch in one.loader:
        one.take_step(batch)
        one.batch += 1
        seen.append(weights(one))
        scales.append(one.update.scaler.get_scale())
    assert one.faults.skipped == 1
    assert scales[1] == scales[0] / 2
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_float16_that_never_fits_is_an_error_and_no_endless_run():
    one = trainer(settings(precision="float16", epochs=40))
    next(one.learner.networks.students.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match="the gradient is not finite"):
        train(one)
    assert one.faults.skipped > 5


def test_recomputed_activations_give_the_same_gradients_and_are_not_kept():
    plain, recomputed = (trainer(settings(checkpoint_activations=on)) for on in (False, True))
    kept = []
    for one in (plain, recomputed):
        sizes = []
        batch = next(iter(one.loader))
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            loss, _ = one.learner.objective(objective_outputs(one.learner.objective, one.learner.inputs(batch, 0)))
        kept.append(sum(sizes))
        loss.backward()
    assert kept[1] < kept[0]
    for (name, p), q in zip(
        plain.learner.networks.named_parameters(), recomputed.learner.networks.parameters(), strict=True
    ):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad), name
    assert same(train(plain), train(recomputed))


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_give_nearly_the_same_losses(monkeypatch, recompute):
    """Traced and run without code generation, which takes a minute."""
    traced = []
    compile_block = torch.nn.Module.compile
    monkeypatch.setattr(Block, "compile", lambda block: traced.append(compile_block(block, backend="aot_eager")))
    plain, compiled = (
        train(trainer(settings(compile=on, checkpoint_activations=recompute, epochs=1))) for on in (False, True)
    )
    assert len(traced) == 6  # blocks of two students, two decoders, two teachers
    for name in ("reconstruction_video", "distillation_audio", "gradient_norm"):
        assert curves(compiled)[name].tolist() == pytest.approx(curves(plain)[name].tolist(), rel=1e-3)
