"""Brings the batches of a loader to the GPU while it still computes the step before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from xkd.data.loader import Batch


class Feed:
    """Copies a batch from pinned memory and augments it, on a CUDA stream of its own; does nothing of it on a CPU.

    A training step returns before the GPU has computed it, so the next batch is asked for, copied and augmented
    meanwhile. Only the work that is queued after it waits for the batch.

    Args:
        finish: augments what was copied.
    """

    def __init__(self, finish: Callable[[Batch], Batch]) -> None:
        self.finish = finish
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None

    def __call__(self, batch: Batch) -> Batch:
        if self.stream is None:
            return self.finish(batch)
        with torch.cuda.stream(self.stream):
            ready = self.finish(batch.to(self.stream.device))
        reader = torch.cuda.current_stream()
        reader.wait_stream(self.stream)
        # The allocator must not give their memory to the next batch before they are read.
        for tensor in ready.tensors():
            tensor.record_stream(reader)
        return ready
