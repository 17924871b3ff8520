"""The processes of `torchrun`: which one this is, and what they agree on. A process alone is a group of one.

Tensors of clips go over NCCL where there are GPUs, else over gloo; agreements go over gloo and wait for no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from xkd.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True)
class TrainingGroup:
    """This process among those of a run.

    Attributes:
        rank, size: number of this process, from 0, and how many there are.
        device: where this process trains.
        control: gloo group for agreements.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Says if this process is the one that writes files."""
        return self.rank == 0

    def alone(self) -> TrainingGroup:
        """This process by itself."""
        return TrainingGroup(device=self.device)

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of a whole batch's."""
        each = len(rows) // self.size
        return rows[self.rank * each : (self.rank + 1) * each]

    def rows(self, own: Tensor) -> list[Tensor]:
        """Rows of all processes, each with as many, without gradient."""
        if self.size == 1:
            return [own.detach()]
        blocks = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(blocks, own.detach().contiguous())
        return blocks

    def mean(self, values: Tensor) -> Tensor:
        """Average over processes."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.size
        return values

    def gather(self, value: Value) -> list[Value]:
        """A small object of each process, in order of rank."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        distributed.all_gather_object(values, value, group=self.control)
        return values

    def to_first(self, value: Value) -> list[Value]:
        """An object of each process, in order of rank, in the first process; nothing in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.first else None
        distributed.gather_object(value, values, group=self.control)
        return values or []

    def most(self, *values: int) -> list[int]:
        """The largest of each number over the processes."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, group=self.control)
        largest: list[int] = numbers.tolist()
        return largest

    @contextmanager
    def together(self) -> Iterator[None]:
        """Ends all processes with an error that any of them raises inside; the first one reports it.

        Raises:
            UserError: in the first process, where any raised one.
            SystemExit: in the others, with code 2.
        """
        problem = None
        try:
            yield
        except UserError as error:
            problem = error
        problems = [text for text in self.gather(problem and str(problem)) if text]
        if problems:
            self.leave_to_first(2)
            raise problem if problem and self.size == 1 else UserError(problems[0])

    def leave_to_first(self, code: int) -> None:
        """Ends all processes but the first, once that one is gone.

        torchrun ends everyone as soon as one process is gone: the first one must have said why and closed its files.

        Raises:
            SystemExit: in all processes but the first.
        """
        if not self.first:
            with suppress(RuntimeError):
                distributed.barrier(group=self.control)
            raise SystemExit(code)


ALONE = TrainingGroup()


@contextmanager
def joined() -> Iterator[TrainingGroup]:
    """The processes that torchrun started together with this one; a group of one without torchrun.

    Raises:
        UserError: more processes on a machine than it has GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if gpus and local >= gpus:
        raise UserError(f"torchrun: process {local} of this machine finds {gpus} GPUs; set --nproc-per-node {gpus}")
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if size == 1:
        yield TrainingGroup(device=device)
        return
    distributed.init_process_group("nccl" if gpus else "gloo")
    control = cast(distributed.ProcessGroup, distributed.new_group(backend="gloo"))  # a number for who is no member
    yield TrainingGroup(distributed.get_rank(), size, device, control)
    distributed.destroy_process_group()  # after an error others may be gone, and this would wait for them
