"""Counts the operations and kept activations of any network: PyTorch runs it on tensors without values."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xkd.models.encoder import Encoder

FAKE = FakeTensorMode(allow_non_fake_inputs=True)
PRIME_CLIPS = 10_007  # a prime: only the size of a tensor with values for each clip is a multiple of it


@dataclass(frozen=True)
class NetworkRun:
    """A network on one clip's input.

    Attributes:
        blueprint: what builds the network, and its arguments; the last argument is `depth`.
        depth: number of blocks.
        shape: of the input.
        kept: number of visible patches, for networks that are told which ones are.
        hidden: number of the others, for networks that are told those too.
        cls_attention: whether an encoder is asked for the attention of CLS.
        alike: whether every block costs what the others do.
    """

    blueprint: tuple[Any, ...]
    depth: int
    shape: tuple[int, ...]
    kept: int | None = None
    hidden: int | None = None
    cls_attention: bool = False
    alike: bool = True

    def build(self) -> Any:
        """Builds the network on a device that stores no values."""
        return _without_values((*self.blueprint, self.depth))

    def __call__(self, network: Any, clips: int) -> Tensor:
        x = torch.empty(clips, *self.shape, requires_grad=not isinstance(network, Encoder))
        told = [torch.zeros(clips, n, dtype=torch.long) for n in (self.kept, self.hidden) if n is not None]
        if self.cls_attention:
            return network.encode(x, *told, with_cls_attention=True).tokens  # type: ignore[no-any-return]
        return network(x, *told)  # type: ignore[no-any-return]


def operations(run: NetworkRun, trained: bool) -> tuple[int, int]:
    """Counts the operations of one clip in the forward and the backward pass.

    A multiply-add is 2 operations, and only matrix products count.
    """
    forward = _over_depth(run, lambda shallow: _operations(shallow, trained)[0])
    return forward, _over_depth(run, lambda shallow: _operations(shallow, trained)[1])


def kept_bytes(run: NetworkRun, precision: torch.dtype | None, recompute: bool = False) -> int:
    """Counts the bytes that the forward pass of one clip keeps for the backward pass.

    Args:
        precision: of autocast; None is float32 throughout.
        recompute: whether blocks keep only their inputs.
    """
    return _over_depth(run, lambda shallow: _kept_bytes(shallow, precision, recompute))


def block_bytes(run: NetworkRun, precision: torch.dtype | None) -> float:
    """Estimates the bytes of one clip at work within a block: those that a block would keep for the backward pass."""
    return kept_bytes(run, precision) / max(1, run.depth)


def _over_depth(run: NetworkRun, count: Callable[[NetworkRun], int]) -> int:
    """Counts with one block and with two, and adds the difference for each further one: a plan answers at once."""
    if not run.alike or run.depth <= 2:
        return count(run)
    one, two = (count(replace(run, depth=depth)) for depth in (1, 2))
    return one + (run.depth - 1) * (two - one)


@lru_cache(maxsize=256)
def _operations(run: NetworkRun, trained: bool) -> tuple[int, int]:
    network = run.build()
    # Fused kernels of attention compute products again in their backward pass, which no model's arithmetic includes.
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        with torch.set_grad_enabled(trained):
            output = run(network, 1)
        forward = counter.get_total_flops()
        if trained:
            output.sum().backward()
        return forward, counter.get_total_flops() - forward


@lru_cache(maxsize=256)
def _kept_bytes(run: NetworkRun, precision: torch.dtype | None, recompute: bool) -> int:
    network, kept = _on_fake_cpu(run.build()), dict[int, int]()
    network.recompute = recompute

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # several tensors may share one
        kept[storage._cdata] = storage.nbytes()
        return tensor

    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FAKE, saved, torch.autocast("cpu", precision, enabled=precision is not None):
        output = run(network, PRIME_CLIPS)
    del output  # until here it holds all that is kept, so that no address is used twice
    return sum(size // PRIME_CLIPS for size in kept.values() if size % PRIME_CLIPS == 0)


@lru_cache(maxsize=64)
def _without_values(blueprint: tuple[Any, ...]) -> Any:
    make, *arguments = blueprint
    with torch.device("meta"):
        return make(*arguments)


@lru_cache(maxsize=64)
def _on_fake_cpu(network: Any) -> Any:
    """Copies a network without values; the copy takes itself for one on a CPU, as autocast needs it."""
    copy = deepcopy(network)
    with FAKE:
        return copy.to_empty(device="cpu")
