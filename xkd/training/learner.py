"""What is trained, as the engine sees it: pretraining's objective, or the classifiers of finetuning.

`Step` and `Trainer` know nothing else of a training, so that both get whatever the engine can do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from xkd.logged import LoggedColumn
from xkd.training.distributed import ALONE, TrainingGroup

if TYPE_CHECKING:
    from xkd.data.loader import Batch


class Inputs(Protocol):
    """All that a step takes beside the weights: this process's share of a batch, on the device."""

    def parts(self, count: int) -> list[Self]:
        """Returns the same in `count` parts of equally many clips."""


@dataclass
class PartLosses:
    """Losses of a part of the batch: `total` gives its share of the gradient; the rest is detached.

    Attributes:
        losses: every loss as a scalar; averaged over equal parts, each is that of the whole batch. "loss" is there.
    """

    total: Tensor
    losses: dict[str, Tensor]


class Learner(nn.Module):
    """A module that computes losses. `Step` needs `forward`, and `Trainer` needs `optimiser` and `inputs` as well.

    Args:
        group: the processes that share each batch.

    Attributes:
        place: group of the settings that its training stands in, for messages.
        advice: what else a user may do where losses are not finite.
        columns: what a step logs beside the schedules, as columns.
        schedules: by name one value for each step, "learning_rate" among them; they are logged.
        clip_gradient: norm limit of each of the `clipped_parameters` on its own.
        cuda_graphs: whether a GPU alone may replay its steps: they are the same kernels each time.
    """

    place: ClassVar[str] = "training"
    advice: ClassVar[str] = ""
    columns: tuple[LoggedColumn, ...] = ()
    schedules: Mapping[str, np.ndarray]
    cuda_graphs: bool = False

    def __init__(self, group: TrainingGroup = ALONE, clip_gradient: float = math.inf) -> None:
        super().__init__()
        self.group, self.clip_gradient = group, clip_gradient

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def optimiser(self) -> torch.optim.Optimizer:
        """Makes the optimiser of the parameters, once they are where they stay."""
        raise NotImplementedError

    def learning_rate(self, group: dict[str, Any], step: int) -> float:
        """Returns the learning rate of one of the optimiser's groups."""
        return float(self.schedules["learning_rate"][step])

    def inputs(self, batch: Batch, step: int) -> Any:
        """Returns the `Inputs` of a step; the same again for the same batch and step."""
        raise NotImplementedError

    def survey(self, parts: Sequence[Any]) -> list[Any]:
        """Returns for each part what `forward` needs to know of the others; without gradients."""
        return [None] * len(parts)

    def forward(self, inputs: Any, whole: Any, parts: int) -> PartLosses:
        """Computes the losses of a part of the batch; changes nothing.

        Args:
            inputs: of the part.
            whole: what `survey` gave for it.
            parts: of this process; the gradients of its parts add up.
        """
        raise NotImplementedError

    def finish(self, parts: list[Any]) -> dict[str, Tensor]:
        """Returns what is logged of the whole batch, once all parts are done; may change buffers."""
        return over_parts([part.losses for part in parts], self.group)

    def clipped_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the tensors whose gradients are clipped, and whose norm is logged."""
        yield from self.parameters()

    def held_parameters(self, inputs: Any) -> Iterable[nn.Parameter]:
        """Returns the tensors that this step leaves as they are."""
        return ()

    def follow(self, inputs: Any, updated: Tensor) -> None:
        """Changes what follows the trained weights, such as teachers.

        Args:
            updated: whether they were changed, a boolean scalar on the device; where not, nothing may change.
        """

    def faulty_clips(self, inputs: Any) -> Tensor:
        """Finds clips that hold or give values that are not finite: (B,) booleans."""
        raise NotImplementedError


def over_parts(values: list[dict[str, Tensor]], group: TrainingGroup) -> dict[str, Tensor]:
    """Averages named scalars over the parts of all processes."""
    if not values[0]:
        return {}
    means = group.mean(torch.stack([torch.stack(list(of.values())) for of in values]).mean(0))
    return dict(zip(values[0], means.unbind(), strict=True))


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Copies what the host holds to the device; a GPU is not waited for."""
    if values.device.type == "cpu" and device.type == "cuda" and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def faulty_rows(inputs: list[Tensor], outputs: list[Tensor]) -> Tensor:
    """Finds clips with values that are not finite: (B,) booleans.

    Args:
        inputs, outputs: tensors of B rows each, or of B rows for each view.
    """
    clips = len(inputs[0])
    rows = [tensor.reshape(-1, clips, tensor[0].numel()) for tensor in (*inputs, *outputs)]
    return torch.stack([~of.isfinite().all(2).all(0) for of in rows]).any(0)
