"""The training step: from a batch to new weights (method section 3, "Update").

`pretrain`, finetuning, the tests against reference numbers, the benchmarks and the check of `xkd plan` all take this
one. It never waits for the device: what the host may want to know comes back as tensors.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xkd.models.half import HalfWeights
from xkd.training.compiling import Compiled
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.learner import Inputs, Learner
from xkd.training.optimiser import clip_each

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SKIPPED, FAULTY = "skipped", "faulty"


class Step:
    """Gradients, clipping of each tensor, the optimiser's update, then what follows the weights, such as teachers.

    Where a loss or gradient is not finite, nothing changes: weights, the optimiser's state, teachers and buffers stay.

    Args:
        learner: its parameters are changed by every step.
        optimiser: of the learner's parameters.
        precision: of the networks; losses are in float32.
        accumulate: parts in which this process goes through its share of a batch.
        group: the processes that share each batch.
        exchange: precision in which processes exchange gradients.
        compile: whether encoders and decoders run compiled.
    """

    def __init__(
        self,
        learner: Learner,
        optimiser: torch.optim.Optimizer,
        precision: str = "float32",
        accumulate: int = 1,
        group: TrainingGroup = ALONE,
        exchange: str = "float32",
        compile: bool = False,
    ) -> None:
        self.learner, self.optimiser, self.accumulate = learner, optimiser, accumulate
        self._device = learner.device.type
        self._precision = AUTOCAST.get(precision)
        self.scaler = torch.amp.GradScaler(self._device, enabled=precision == "float16")
        self._compiled = Compiled(learner, compile)
        self._half_weights = HalfWeights(learner, self._precision)
        self._part: nn.Module = learner
        if group.size > 1:
            # Its buckets travel while the backward pass goes on, and blocks that networks share are reduced once. A
            # bucket at a time by hand would need the same list of parameters, and wait at the end.
            self._part = DistributedDataParallel(learner, gradient_as_bucket_view=True)
            if exchange == "bfloat16":
                from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

                self._part.register_comm_hook(None, bf16_compress_hook)
        self._clipped = list(learner.clipped_parameters())
        self._buffers = list(learner.buffers())
        clipped = set(self._clipped)
        self._others = [p for p in learner.parameters() if p.requires_grad and p not in clipped]

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            inputs: this process's share of the batch.

        Returns:
            As scalars every loss and diagnostic of the whole batch; `gradient_norm`: of all clipped tensors together,
            before clipping, NaN where nothing was changed; booleans `SKIPPED`: nothing was changed, and `FAULTY`: for
            no reason that belongs to float16, whose scale finds its place by overflows.
        """
        kept = [buffer.clone() for buffer in self._buffers]
        with self._compiled, self._half_weights:
            logged = self._backward(inputs.parts(self.accumulate))
        self.scaler.unscale_(self.optimiser)
        for parameter in self.learner.held_parameters(inputs):
            parameter.grad = None
        norm = clip_each(self._clipped, self.learner.clip_gradient)
        finite_loss = logged["loss"].isfinite()
        finite = finite_gradients(norm, self._others) & finite_loss
        self._update(finite)
        self.learner.follow(inputs, finite)
        for buffer, before in zip(self._buffers, kept, strict=True):
            buffer.copy_(torch.where(finite, buffer, before))
        faulty = ~finite & ~(finite_loss & self._may_overflow(finite))
        self.scaler.update()
        return {**logged, "gradient_norm": torch.where(finite, norm, torch.nan), SKIPPED: ~finite, FAULTY: faulty}

    def autocast(self) -> torch.autocast:
        """Returns a context in which networks run in the precision of training."""
        return torch.autocast(self._device, self._precision, enabled=self._precision is not None)

    def _backward(self, parts: list[Any]) -> dict[str, Tensor]:
        """Computes the gradients of the whole batch, part by part; returns what is logged."""
        self.optimiser.zero_grad()
        with self.autocast():
            wholes, done = self.learner.survey(parts), []
        for number, (inputs, whole) in enumerate(zip(parts, wholes, strict=True), start=1):
            with self._no_sync() if number < len(parts) else nullcontext():
                with self.autocast():
                    losses = self._part(inputs, whole, len(parts))
                self.scaler.scale(losses.total).backward()
            losses.total = losses.total.detach()
            done.append(losses)
        return self.learner.finish(done)

    def _no_sync(self) -> AbstractContextManager[None]:
        """Returns a context in which processes do not share gradients."""
        return self._part.no_sync() if isinstance(self._part, DistributedDataParallel) else nullcontext()

    def _update(self, finite: Tensor) -> None:
        """Takes the optimiser's step, if all is finite; a fused optimiser decides that on the device."""
        if self.optimiser.defaults["fused"]:
            self.optimiser.grad_scale, self.optimiser.found_inf = None, (~finite).float()  # type: ignore[attr-defined]
            self.optimiser.step()
        elif finite:  # on the CPU alone
            self.optimiser.step()

    def _may_overflow(self, like: Tensor) -> Tensor:
        """Tells whether float16's scale is still so large that an overflow means nothing; without it, never."""
        if not self.scaler.is_enabled():
            return torch.zeros_like(like)
        scale: Tensor = self.scaler.scale(torch.ones_like(like, dtype=torch.float32))
        return scale >= 1


def finite_gradients(norm: Tensor, others: list[nn.Parameter]) -> Tensor:
    """Tells whether no gradient holds an infinity or a NaN: a boolean scalar.

    Args:
        norm: of the clipped gradients.
        others: parameters whose gradients are not clipped.
    """
    gradients = [p.grad for p in others if p.grad is not None]
    return torch.stack([norm, *torch._foreach_norm(gradients)] if gradients else [norm]).isfinite().all()
