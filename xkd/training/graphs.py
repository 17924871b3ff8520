"""Takes steps as CUDA graphs: all kernels of a step are launched at once, since Python needs longer than a fast GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.training.learner import on_device
from xkd.training.step import FAULTY, SKIPPED, Step

WARM_UP = 3  # steps before the recorded one: libraries choose kernels, and the optimiser makes its state

Replay = Callable[[], None]


class GraphedStep:
    """A step that is recorded once for each kind of inputs, and replayed from then on.

    Steps of one kind have tensors of the same shapes and the same flags; the values of tensors, numbers (temperatures,
    momentum) and learning rates differ. Results equal those of `Step` up to rounding. The optimiser's state must not be
    replaced after the first step.

    Args:
        step: on a GPU, of a process alone, in float32 or bfloat16.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._steps: dict[Hashable, _StepOfAKind] = {}
        self._pool: Any = None

    def __call__(self, inputs: Any) -> dict[str, Tensor]:
        """Takes a step as `Step` does.

        Raises:
            UserError: CUDA cannot record it.
        """
        kind = kind_of(inputs)
        if kind not in self._steps:
            self._steps[kind] = _StepOfAKind(self.step, inputs, self._record)
        return self._steps[kind](inputs)

    def _record(self, function: Callable[[], Any]) -> tuple[Replay, Any]:
        # Recordings share memory: they never run at the same time.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            return recorded(function, self._pool)
        except RuntimeError as error:
            raise UserError(
                f"a step cannot be recorded as a CUDA graph here ({str(error).splitlines()[0]}); with "
                "training.cuda_graphs: false the same command starts again from its last checkpoint"
            ) from error


class _StepOfAKind:
    """A step on tensors of its own, which its inputs are copied to. All steps compute alike, replayed or not."""

    def __init__(self, step: Step, inputs: Any, record: Callable[[Callable[[], Any]], tuple[Replay, Any]]) -> None:
        self._step, self._record, self._taken = step, record, 0
        self._replay: Replay | None = None
        device, found = step.learner.device, leaves(inputs)
        self._tensors = [torch.empty_like(leaf) for leaf in found if isinstance(leaf, Tensor)]
        # In float32, momentum near 1 would say little about the rest.
        self._numbers = torch.zeros(sum(isinstance(leaf, float) for leaf in found), dtype=torch.float64, device=device)
        self._rates = torch.zeros(len(step.optimiser.param_groups), device=device)
        tensors, numbers = iter(self._tensors), iter(self._numbers.unbind())

        def own(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return next(tensors)
            return next(numbers) if isinstance(leaf, float) else leaf

        self._inputs = mapped(inputs, own)

    def __call__(self, inputs: Any) -> dict[str, Tensor]:
        self._fill(leaves(inputs))
        self._taken += 1
        if self._taken <= WARM_UP:
            return self._logged(*self._compute())
        if self._replay is None:
            self._replay, self._results = self._record(self._compute)
        self._replay()
        names, values = self._results
        return self._logged(names, values.clone())

    def _fill(self, found: list[Any]) -> None:
        """Copies inputs and learning rates to where the step reads them; the GPU is not waited for."""
        torch._foreach_copy_(self._tensors, [leaf for leaf in found if isinstance(leaf, Tensor)])
        numbers = [leaf for leaf in found if isinstance(leaf, float)]
        rates = [float(group["lr"]) for group in self._step.optimiser.param_groups]
        scalars = on_device(torch.tensor([*numbers, *rates], dtype=torch.float64), self._rates.device)
        self._numbers.copy_(scalars[: len(numbers)])
        self._rates.copy_(scalars[len(numbers) :])

    def _compute(self) -> tuple[list[str], Tensor]:
        with _rates_on_device(self._step.optimiser.param_groups, self._rates):
            logged = self._step(self._inputs)
        return list(logged), torch.stack([value.float() for value in logged.values()])

    def _logged(self, names: list[str], values: Tensor) -> dict[str, Tensor]:
        logged = dict(zip(names, values.unbind(), strict=True))
        return {**logged, **{flag: logged[flag].bool() for flag in (SKIPPED, FAULTY)}}


def recorded(function: Callable[[], Any], pool: Any) -> tuple[Replay, Any]:
    """Records the kernels that a function launches, without running them.

    Args:
        pool: of CUDA's memory.

    Returns:
        What launches them all, and the function's result, whose tensors they fill.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads go on copying to pinned memory meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        result = function()
    return graph.replay, result


@contextmanager
def _rates_on_device(groups: list[dict[str, Any]], rates: Tensor) -> Iterator[None]:
    """Lets an optimiser read learning rates from a tensor; outside they are numbers, which checkpoints hold."""
    kept = [(group["lr"], group["capturable"]) for group in groups]
    for group, rate in zip(groups, rates.unbind(), strict=True):
        group["lr"], group["capturable"] = rate, True
    try:
        yield
    finally:
        for group, (rate, capturable) in zip(groups, kept, strict=True):
            group["lr"], group["capturable"] = rate, capturable


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Returns the same dataclasses, dictionaries and lists with everything else in them changed."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{of.name: mapped(getattr(value, of.name), change) for of in fields(value)})
    if isinstance(value, dict):
        return {key: mapped(of, change) for key, of in value.items()}
    return [mapped(of, change) for of in value] if isinstance(value, list) else change(value)


def leaves(value: Any) -> list[Any]:
    """Lists what `mapped` would change, in its order."""
    found: list[Any] = []
    mapped(value, found.append)
    return found


def kind_of(inputs: Any) -> Hashable:
    """Returns what steps must share so that one recording serves them all."""
    return tuple(
        (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else float if isinstance(leaf, float) else leaf
        for leaf in leaves(inputs)
    )
