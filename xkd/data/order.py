"""The order in which clips are read: at random among all of them, or among those of a window at a time.

An order depends on (seed, epoch) and nothing else: not on ranks, workers or where an epoch begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np
import torch
from torch.utils.data import Sampler

from xkd.modalities.base import clip_generator

STRETCHES = 8  # of a window
Permutation = Callable[[torch.Generator], np.ndarray]  # draws the numbers of all clips in a new order


class Order(Sampler[list[tuple[int, int]]]):
    """Lists batches of keys (epoch, index) of one epoch, so that workers learn the epoch with each clip.

    Args:
        clips: number of clips.
        batch: clips of a batch, over all ranks.
        seed: of the order.
        shuffled: draws a new order for each epoch, of full batches only.
        rank: rank and number of ranks; each gets an equal share of every batch, clips that follow each other.
        chosen: numbers of the clips, for orders that are not shuffled; by default all.

    Attributes:
        epoch, first: which epoch comes next, and its first batch.
    """

    def __init__(
        self,
        clips: int,
        batch: int,
        seed: int = 0,
        shuffled: Permutation | None = None,
        rank: tuple[int, int] = (0, 1),
        chosen: Sequence[int] | None = None,
    ):
        self.clips, self.batch, self.seed, self.shuffled, self.rank = clips, batch, seed, shuffled, rank
        self.epoch, self.first = 0, 0
        self.chosen = range(clips) if chosen is None else chosen

    def __len__(self) -> int:
        return self.clips // self.batch if self.shuffled else -(-len(self.chosen) // self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.batches(self.epoch, self.first)

    def batches(self, epoch: int, first: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yields the batches of an epoch, from one of them on."""
        drawn = self.shuffled and self.shuffled(clip_generator(self.seed, epoch, "order"))
        order = self.chosen if drawn is None else drawn
        rank, ranks = self.rank
        share = self.batch // ranks
        for number in range(first, len(self)):
            start = number * self.batch + rank * share
            chosen = np.asarray(order[start : start + share]).tolist()
            if chosen:  # the last batch may end before the share of this rank
                yield [(epoch, index) for index in chosen]


class Onwards(Sampler[list[tuple[int, int]]]):
    """Lists the batches of an order's epoch and of all epochs after it: loader processes go on with the next one."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        following = count(self.order.epoch + 1)  # the order is told of the next epoch while this one is read
        yield from self.order
        for epoch in following:
            yield from self.order.batches(epoch)


def among_all(clips: int) -> Permutation:
    """Shuffles all clips."""
    return lambda generator: torch.randperm(clips, generator=generator).numpy()


def among_windows(places: np.ndarray, window: int) -> Permutation:
    """Shuffles the clips of a window, then those of the next one, so that few shards are read at a time.

    A window is made of stretches of clips that follow each other in the shards; which ones, each epoch draws anew. It
    depends on the clips alone, not on the size of shards or on whether there are any.

    Args:
        places: (clips,) of `shards.places_of`, the order of clips in shards.
        window: clips of a window, about.
    """
    clips = len(places)
    stretches = max(round(STRETCHES * clips / window), 1)
    stretch_of = np.empty(clips, np.int64)
    stretch_of[np.argsort(places, kind="stable")] = np.arange(clips) * stretches // clips

    def permutation(generator: torch.Generator) -> np.ndarray:
        window_of = torch.randperm(stretches, generator=generator).numpy()[stretch_of] // STRETCHES
        shuffled = torch.randperm(clips, generator=generator).numpy()
        return shuffled[np.argsort(window_of[shuffled], kind="stable")]

    return permutation
