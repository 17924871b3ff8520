"""The training step: from a batch to new weights (method section 3, "Update").

`pretrain`, the tests against reference numbers, the benchmarks and the check of `xkd plan` all take this one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.objective import Objective
from xkd.training.optimiser import clip_each
from xkd.training.sharing import Inputs, SharedObjective

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class NotFinite(Exception):
    """A loss or gradient of a step is not finite; no weight was changed.

    Attributes:
        what: "loss" or "gradient".
        logged: the scalars of the step.
    """

    def __init__(self, what: str, logged: dict[str, Tensor]) -> None:
        super().__init__(what)
        self.what, self.logged = what, logged


class Step:
    """Gradients, clipping of each tensor of encoders and heads, AdamW, then the teachers follow.

    Args:
        objective: its networks are changed by every step.
        optimiser: of the objective's parameters.
        clip_gradient: limit of each student tensor's gradient norm.
        precision: of the networks; losses are in float32.
        accumulate: parts in which this process goes through its share of a batch.
        group: the processes that share each batch.

    Attributes:
        skipped: steps without an update, since gradients in float16 overflowed.
    """

    def __init__(
        self,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        clip_gradient: float,
        precision: str = "float32",
        accumulate: int = 1,
        group: TrainingGroup = ALONE,
    ) -> None:
        self.objective, self.networks, self.optimiser = objective, objective.networks, optimiser
        self.clip_gradient, self.accumulate = clip_gradient, accumulate
        self._device = next(objective.parameters()).device.type
        self._precision = AUTOCAST.get(precision)
        self.scaler = torch.amp.GradScaler(self._device, enabled=precision == "float16")
        self._shared = SharedObjective(objective, group)
        self._part: nn.Module = self._shared
        if group.size > 1:
            # Its buckets travel while the backward pass goes on, and blocks that networks share are reduced once. A
            # bucket at a time by hand would need the same list of parameters, and wait at the end.
            self._part = DistributedDataParallel(self._shared, gradient_as_bucket_view=True)
        clipped = set(self.networks.clipped_parameters())
        self._unclipped = [p for p in objective.parameters() if p.requires_grad and p not in clipped]
        self.skipped = 0

    def __call__(self, inputs: Inputs, momentum: dict[str, float], hold_last_layer: bool = False) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            inputs: this process's share of the batch.
            momentum: of each modality's teacher (EMA).
            hold_last_layer: leaves the heads' last layer as it is.

        Returns:
            Every loss and diagnostic of the whole batch as a scalar, and `gradient_norm`: of all clipped tensors
            together, before clipping; NaN where float16 overflowed and nothing was changed.

        Raises:
            NotFinite: before any weight was changed.
        """
        kept = {name: buffer.clone() for name, buffer in self.objective.named_buffers()}
        logged = self._backward(inputs.parts(self.accumulate))
        self.scaler.unscale_(self.optimiser)
        if hold_last_layer:
            for head in self.networks.student_heads.values():
                head.directions.grad = None
        norm = clip_each(self.networks.clipped_parameters(), self.clip_gradient)
        if not finite_gradients(norm, self._unclipped) & logged["loss"].isfinite():
            if not self.scaler.is_enabled() or not logged["loss"].isfinite() or self.scaler.get_scale() < 1:
                raise NotFinite("gradient" if logged["loss"].isfinite() else "loss", logged)
            for name, buffer in self.objective.named_buffers():
                buffer.copy_(kept[name])
            self.skipped += 1
            norm = norm.new_tensor(float("nan"))
        else:
            self.optimiser.step()
            self.networks.update_teachers(momentum)
        self.scaler.update()
        return {**logged, "gradient_norm": norm}

    def autocast(self) -> torch.autocast:
        """Returns a context in which networks run in the precision of training."""
        return torch.autocast(self._device, self._precision, enabled=self._precision is not None)

    def _backward(self, parts: list[Inputs]) -> dict[str, Tensor]:
        """Computes the gradients of the whole batch, part by part; returns what is logged."""
        self.optimiser.zero_grad()
        with self.autocast():
            wholes, done = self._shared.survey(parts), []
        for number, (inputs, whole) in enumerate(zip(parts, wholes, strict=True), start=1):
            with self._no_sync() if number < len(parts) else nullcontext():
                with self.autocast():
                    losses = self._part(inputs, whole, len(parts))
                self.scaler.scale(losses.total).backward()
            losses.total = losses.total.detach()
            done.append(losses)
        return self._shared.finish(done)

    def _no_sync(self) -> AbstractContextManager[None]:
        """Returns a context in which processes do not share gradients."""
        return self._part.no_sync() if isinstance(self._part, DistributedDataParallel) else nullcontext()


def finite_gradients(norm: Tensor, others: list[nn.Parameter]) -> Tensor:
    """Tells whether no gradient holds an infinity or a NaN: a scalar, so that a GPU is waited for once a step.

    Args:
        norm: of the clipped gradients.
        others: parameters whose gradients are not clipped.
    """
    gradients = [p.grad for p in others if p.grad is not None]
    return torch.stack([norm, *torch._foreach_norm(gradients)] if gradients else [norm]).isfinite().all()
