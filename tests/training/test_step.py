"""One step: faults that stop it, float16, recomputation."""

import pytest
import torch
from tiny_runs import curves, same, settings, train, trainer
from torch._dynamo.utils import counters

from xkd.errors import UserError
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_under_a_budget_a_step_that_is_not_finite_is_left_out_whole(capsys, precision):
    one = trainer(settings(precision=precision, skip_budget=0.2), poisoned_step=2)  # of 6 steps: 1
    seen = [everything(one)]
    inputs = one.learner.inputs  # asked for before a step, and once more to find the clips at fault
    one.learner.inputs = lambda *of: seen.append(everything(one)) or inputs(*of)
    train(one)
    seen.append(everything(one))
    same = [torch.equal(before, after) for before, after in zip(seen, seen[1:], strict=False)]
    assert same == [True, False, False, True, True, False, False, False]
    assert one.faults.state_dict() == {"skipped": 1, "faulty": 1}
    said = capsys.readouterr().err
    assert "step 2: the loss is not finite" in said
    assert "nothing was updated; 1 of at most 1 such steps. Clips: clip102" in said
    assert curves(one)["gradient_norm"].isna().tolist() == [False, False, True, False, False, False]
    assert one.recorder.epochs[1]["gradient_norm"] > 0


def everything(one):
    """Weights, teachers, buffers and the optimiser's state as one vector."""
    values = [value for of in one.optimiser.state.values() for value in of.values()]
    return torch.cat([value.flatten().float() for value in (*one.learner.state_dict().values(), *values)])


def test_more_such_steps_than_the_budget_end_the_run_and_a_higher_one_goes_on():
    def run(budget, state=None):
        one = trainer(settings(skip_budget=budget))
        tensor = next(one.learner.networks.students.parameters())
        tensor.register_hook(lambda gradient: gradient * (float("nan") if one.step in (2, 3, 4) else 1))
        if state:
            one.load_state_dict(state)
        saved = []
        return one, saved, lambda: train(one, save=saved.append)

    one, saved, go = run(0.4)  # of 6 steps: 2
    with pytest.raises(UserError, match=r"step 4: the gradient is not finite .* training.skip_budget allows 2 such"):
        go()
    assert one.faults.faulty == 3
    assert saved[-1]["faults"] == {"skipped": 2, "faulty": 2}
    one, _, go = run(0.5, saved[-1])
    go()
    assert one.step == 6
    assert one.faults.faulty == 3


def test_where_outcomes_arrive_late_the_error_names_the_step_and_its_clip():
    one = trainer(settings(), poisoned_step=2)
    one.faults._late = 1
    with pytest.raises(UserError, match=r"step 2: the loss is not finite .*Clips: clip102$"):
        train(one)
    assert one.step == 3
    one = trainer(settings(), poisoned_step=5)  # the last one
    one.faults._late = 1
    with pytest.raises(UserError, match=r"step 5: the loss is not finite"):
        train(one)


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


def test_compiled_networks_give_nearly_the_same_losses(monkeypatch):
    """Traced and run without code generation, which takes a minute; with recomputed activations, the harder case."""
    traced, compiled = [], torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda call, **how: traced.append(call) or compiled(call, backend="aot_eager", **how)
    )
    torch._dynamo.reset()
    counters.clear()
    one, other = (trainer(settings(compile=on, checkpoint_activations=True, epochs=1)) for on in (False, True))
    assert len(traced) == 10, "two functions of two students and two teachers, two decoders"
    plain, compiled_curves = curves(train(one)), curves(train(other))
    assert counters["stats"]["unique_graphs"] == 6, "one for all views of a student, one of a teacher and of a decoder"
    assert not counters["graph_break"]
    for name in ("reconstruction_video", "distillation_audio", "gradient_norm"):
        assert compiled_curves[name].tolist() == pytest.approx(plain[name].tolist(), rel=1e-3)
    student = other.learner.networks.students["video"]
    assert "encode_patches" not in vars(student), "between steps, networks are as they were"


def test_networks_that_cannot_be_compiled_say_what_to_do(monkeypatch):
    def no_compiler(graph, inputs):
        raise RuntimeError("no C++ compiler")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **how: compiled(call, backend=no_compiler, **how))
    torch._dynamo.reset()
    with pytest.raises(UserError, match=r"cannot compile.*no C\+\+ compiler.*set training.compile: false"):
        train(trainer(settings(compile=True)))
