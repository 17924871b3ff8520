"""Batches of views. What a clip looks like depends on (seed, epoch, clip id) and nothing else."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from xkd.data import manifest
from xkd.data.allocator import keep_freed_memory
from xkd.data.clips import ClipStore, open_rows
from xkd.data.feed import Feed
from xkd.data.labels import classes_of, numbers_of, several
from xkd.data.order import Onwards, Order, Permutation, among_all, among_windows
from xkd.data.queue import SHARED_MEMORY, Queue, clip_bytes, fitted
from xkd.data.shards import places_of
from xkd.data.staging import stage
from xkd.data.views import ClipViews, EvalViews, TrainViews
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.modalities.base import clip_generator
from xkd.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """B clips.

    Between worker and device, where `training.augment` says so, the views are cuts that still wait for their `draws`.

    Attributes:
        labels: (B,) class numbers, which index `loader.classes`; where clips have several labels (B, classes) floats, 1
            for each label of a clip.
        views: of each modality that was asked for, global first: (B, 3, T, H, W) or (B, 1, n_mels, frames).
    """

    ids: list[str]
    labels: Tensor
    views: ClipViews
    draws: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """Copies the batch to `device`; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Copies the batch to pinned memory; called by DataLoader where a GPU will read it."""
        return self._map(Tensor.pin_memory)

    def tensors(self) -> list[Tensor]:
        """Lists the labels and all views."""
        return [self.labels, *(view for of in self.views.values() for view in of)]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        views = {modality: [change(view) for view in views] for modality, views in self.views.items()}
        draws = None if self.draws is None else change(self.draws)
        return replace(self, labels=change(self.labels), views=views, draws=draws)


class Loader:
    """Iterates over `Batch`es of one epoch; `len()` is their number in a whole epoch.

    Attributes:
        classes: sorted labels of the whole manifest; a class number is an index here.
        ids: clip ids in manifest order.
    """

    def __init__(self, dataset: _ClipViews, queue: Queue, order: Order):
        self.classes, self.ids = dataset.classes, dataset.ids
        self._views, self._order = dataset.views, order
        self._reading: Iterator[Batch] | None = None  # goes on with the epoch and batch that `_next` says
        self._next = (0, 0)
        self._loader = DataLoader(
            dataset,
            sampler=Onwards(order) if order.shuffled else order,
            batch_size=None,  # the data set makes batches itself
            num_workers=queue.workers,
            worker_init_fn=_obey_parent_alone,
            persistent_workers=queue.workers > 0,
            prefetch_factor=queue.ahead or None,
            pin_memory=torch.cuda.is_available(),
        )

    def close(self) -> None:
        """Ends the loader's processes; the next iteration would start others.

        With pinned memory PyTorch waits five seconds for each of those that are left when the program ends.
        """
        if isinstance(self._loader._iterator, _MultiProcessingDataLoaderIter):  # there is no public way
            self._loader._iterator._shutdown_workers()
        self._loader._iterator = self._reading = None

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Chooses the order and the draws of the next iteration, and its first batch, so that a run can resume."""
        self._order.epoch, self._order.first = epoch, first

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        feed = Feed(self._finished)
        try:
            for batch in self._epoch() if self._order.shuffled else self._loader:
                yield batch if isinstance(self._views, EvalViews) else feed(batch)
        except UserError as error:  # a worker's error arrives wrapped in its traceback; its last line is ours
            raise UserError(str(error).strip().splitlines()[-1].removeprefix("xkd.errors.UserError: ")) from error
        except RuntimeError as error:
            problem = _of_the_machine(str(error))
            if problem is None:
                raise
            raise UserError(problem) from error

    def _epoch(self) -> Iterator[Batch]:
        """Yields the batches of an epoch; those of the next one are being made already."""
        epoch, first = self._order.epoch, self._order.first
        if self._reading is None or self._next != (epoch, first):
            self._reading = iter(self._loader)
        for number in range(first, len(self)):
            batch, self._next = next(self._reading), divmod(epoch * len(self) + number + 1, len(self))
            yield batch

    def _finished(self, batch: Batch) -> Batch:
        """Augments cuts; views are finished already."""
        if batch.draws is None or isinstance(self._views, EvalViews):
            return batch
        return replace(batch, draws=None, views=self._views.finish(batch.views, batch.draws))


def train_loader(
    recipe: Recipe,
    manifest_path: str | Path,
    seed: int,
    modalities: Sequence[str] = tuple(MODALITIES),
    local_views: bool = True,
    *,
    split: str = "train",
    fold: str | None = None,
    batch_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Loader:
    """Makes shuffled, augmented batches of full size; call `set_epoch` before each epoch.

    Args:
        modalities: names of those to read; the others cost nothing.
        local_views: whether local views are made beside the global one.
        fold: official fold whose split is meant.
        batch_size: instead of training.batch_size.
        shard: rank and number of ranks; each of them loads its equal share of every batch.

    Raises:
        UserError: fewer usable clips than one batch, or a batch that the ranks cannot share equally.
    """
    dataset = _ClipViews(manifest_path, (split, fold), TrainViews(recipe, modalities, local_views), seed)
    size = batch_size or recipe.training.batch_size
    if len(dataset) < size:
        raise UserError(
            f"{manifest_path}: {len(dataset)} usable {split} clips are fewer than one batch of {size}; "
            "lower training.batch_size or prepare more clips"
        )
    if size % shard[1]:
        raise UserError(
            f"training.batch_size: {size} clips cannot be shared equally by {shard[1]} processes; "
            "change it, or start another number of them"
        )
    if recipe.training.stage_to:
        stage(dataset.store.shards, recipe.training.stage_to)
    queue = _queue(recipe, dataset, size // shard[1])
    return Loader(dataset, queue, Order(len(dataset), size, seed, _shuffled(dataset.store, recipe), shard))


def eval_loader(
    recipe: Recipe,
    manifest_path: str | Path,
    split: str | None,
    batch_size: int,
    modalities: Sequence[str] = tuple(MODALITIES),
    *,
    clips: int = 1,
    crops: int = 1,
    augmented: int | None = None,
    first: int = 0,
    numbers: Sequence[int] | None = None,
    fold: str | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Loader:
    """Makes batches of all clips of a split (None: of the manifest) in manifest order, always the same views of each.

    Args:
        clips, crops: views of each clip, see `EvalViews`.
        augmented: instead of those, one global view as in training, drawn with this seed.
        first: number of the clip to begin with.
        numbers: of the clips to read, instead of all from `first` on.
        fold: official fold whose split is meant.
        shard: rank and number of ranks; the ranks take batches in turn.

    Raises:
        UserError: the split has no usable clip.
    """
    if augmented is None:
        dataset = _ClipViews(manifest_path, (split, fold), EvalViews(recipe, modalities, clips, crops))
    else:
        views = TrainViews(recipe, modalities, local_views=False)
        dataset = _ClipViews(manifest_path, (split, fold), views, seed=augmented)
    if len(dataset) == 0:
        raise UserError(f"{manifest_path}: no usable clip in split '{split}'; look at the reasons in summary.json")
    chosen = range(first, len(dataset)) if numbers is None else numbers
    order = Order(len(dataset), batch_size * shard[1], rank=shard, chosen=chosen)
    return Loader(dataset, _queue(recipe, dataset, min(batch_size, len(dataset))), order)


def _queue(recipe: Recipe, dataset: _ClipViews, clips: int) -> Queue:
    """Returns the queue for batches of so many clips in this process."""
    training = recipe.training
    return fitted(training.workers, training.queue_gb, clips * clip_bytes(dataset.views, recipe.logmel))


def _shuffled(store: ClipStore, recipe: Recipe) -> Permutation:
    window = recipe.training.shuffle_window
    return among_windows(places_of(store.manifest.column("digest")), window) if window else among_all(len(store))


def _of_the_machine(message: str) -> str | None:
    """Returns what the user can do where loader processes ran out of memory; None for any other error."""
    if (
        "shared memory" in message
        or re.search(r"(unable to|could not) \w+ .*</torch_", message)
        or "Bus error" in message
    ):
        return (
            f"{SHARED_MEMORY} is full: loader processes pass batches through it; lower training.workers (0 needs "
            "none), or enlarge it (docker run --shm-size 8g)"
        )
    if "killed by signal: Killed" in message:
        return "a loader process was killed, as systems do when memory runs out; lower training.workers, or add memory"
    return None


def _obey_parent_alone(_worker: int) -> None:
    """Ignores others' signals: one that reaches all of a job is for the process that trains, which ends its workers."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        told = None
        while os.getppid() == parent and (told is None or told.si_pid != parent):  # or it was killed
            told = signal.sigtimedwait({signal.SIGTERM}, 5.0)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


class _ClipViews(Dataset[Batch]):
    """Batches for keys (epoch, index); a worker gets the rows that were read. `seed` is that of training views."""

    def __init__(
        self,
        manifest_path: str | Path,
        chosen: tuple[str | None, str | None],
        views: TrainViews | EvalViews,
        seed: int = 0,
    ):
        whole = manifest.read_manifest(manifest_path)
        self.views, self.seed, self.store = views, seed, open_rows(whole, *chosen)
        self.ids = self.store.ids
        labels = whole.rows["label"].unique().tolist()
        self.classes: list[str] = classes_of(labels).tolist()
        self.several = several(labels)
        self._numbers = {label: number for number, label in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, keys: list[tuple[int, int]]) -> Batch:
        keep_freed_memory()
        epochs, indices = zip(*keys, strict=True)
        clips = self.views.open(self.store, indices)
        ids, labels = [clip.id for clip in clips], self._labels(self.store.labels.take(indices))
        if isinstance(self.views, EvalViews):
            return Batch(ids, labels, self.views.batch(clips))
        cuts = self.views.cut(clips, map(partial(clip_generator, self.seed), epochs, ids))
        if self.views.on_device:
            return Batch(ids, labels, *cuts)
        return Batch(ids, labels, self.views.finish(*cuts))

    def _labels(self, labels: Sequence[str]) -> Tensor:
        numbers = [numbers_of(label, self._numbers) for label in labels]
        if not self.several:
            return torch.tensor(numbers)[:, 0]
        targets = torch.zeros(len(numbers), len(self.classes))
        for target, of in zip(targets, numbers, strict=True):
            target[of] = 1
        return targets
