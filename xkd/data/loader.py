"""Batches of views. What a clip looks like depends on (seed, epoch, clip id) and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from xkd.data import manifest
from xkd.data.clips import open_clips
from xkd.data.memory import keep_freed_memory
from xkd.data.views import MODALITIES, EvalViews, TrainViews, clip_generator
from xkd.errors import UserError
from xkd.settings import Recipe


@dataclass(frozen=True)
class Batch:
    """B clips: `video` views (B, 3, T, H, W) and `audio` views (B, 1, n_mels, frames), global first.

    `labels` (B,) index `loader.classes`. A modality that was not asked for is an empty list.
    Between worker and device, where `training.augment` says so, the views are cuts that still wait for their `draws`.
    """

    ids: list[str]
    labels: Tensor
    video: list[Tensor]
    audio: list[Tensor]
    draws: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its tensors on `device`; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by DataLoader where a GPU will read the batch."""
        return self._map(Tensor.pin_memory)

    def _map(self, change) -> Batch:
        return replace(
            self,
            labels=change(self.labels),
            video=[change(view) for view in self.video],
            audio=[change(view) for view in self.audio],
        )


class Loader:
    """Iterates over `Batch`es of one epoch; `len()` is their number.

    Attributes:
        classes: sorted label strings of the whole manifest; a label is its index here.
        ids: clip ids in manifest order.
    """

    def __init__(self, dataset: _ClipViews, batch_size: int, workers: int, order: _Order):
        self.classes, self.ids = dataset.classes, dataset.ids
        self._views, self._order = dataset.views, order
        self._loader = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=order,
            drop_last=order.shuffle,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and the draws of the next iteration; any epoch, so that a run can resume."""
        self._order.epoch = epoch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self._loader:
                yield batch if batch.draws is None else self._finished(batch)
        except UserError as error:  # a worker's error arrives wrapped in its traceback; its last line is ours
            raise UserError(str(error).strip().splitlines()[-1].removeprefix("xkd.errors.UserError: ")) from error

    def _finished(self, cuts: Batch) -> Batch:
        """Augmented on the GPU, if there is one."""
        cuts = cuts.to("cuda" if torch.cuda.is_available() else "cpu")
        views = self._views.finish(cuts.video, cuts.audio, cuts.draws)
        return replace(cuts, draws=None, **views)


def train_loader(
    recipe: Recipe,
    manifest_path: str | Path,
    seed: int,
    modalities: Sequence[str] = MODALITIES,
    local_views: bool = True,
    *,
    split: str = "train",
    fold: str | None = None,
    batch_size: int | None = None,
) -> Loader:
    """Shuffled, augmented batches of full size; call `set_epoch` before each epoch.

    Args:
        modalities: which of video and audio to read; the others cost nothing.
        local_views: whether local views are made beside the global one.
        fold: official fold whose split is meant.
        batch_size: instead of training.batch_size.

    Raises:
        UserError: fewer usable clips than one batch.
    """
    dataset = _ClipViews(manifest_path, (split, fold), TrainViews(recipe, modalities, local_views), seed)
    size = batch_size or recipe.training.batch_size
    if len(dataset) < size:
        raise UserError(
            f"{manifest_path}: {len(dataset)} usable {split} clips are fewer than one batch of {size}; "
            "lower training.batch_size or prepare more clips"
        )
    return Loader(dataset, size, recipe.training.workers, _Order(len(dataset), seed, shuffle=True))


def eval_loader(
    recipe: Recipe,
    manifest_path: str | Path,
    split: str | None,
    batch_size: int,
    modalities: Sequence[str] = MODALITIES,
    *,
    clips: int = 1,
    crops: int = 1,
    augmented: int | None = None,
    first: int = 0,
) -> Loader:
    """All clips of a split (None: of the manifest) in manifest order, always the same views of each.

    Args:
        clips, crops: views of each clip, see `EvalViews`.
        augmented: instead of those, one global view as in training, drawn with this seed.
        first: number of the clip to begin with.

    Raises:
        UserError: the split has no usable clip.
    """
    if augmented is None:
        dataset = _ClipViews(manifest_path, (split, None), EvalViews(recipe, modalities, clips, crops), seed=None)
    else:
        views = TrainViews(recipe, modalities, local_views=False)
        dataset = _ClipViews(manifest_path, (split, None), views, seed=augmented)
    if len(dataset) == 0:
        raise UserError(f"{manifest_path}: no usable clip in split '{split}'; look at the reasons in summary.json")
    return Loader(
        dataset, batch_size, recipe.training.workers, _Order(len(dataset), seed=0, shuffle=False, first=first)
    )


def collate(items: list[tuple[str, int, dict[str, list[Tensor] | Tensor]]]) -> Batch:
    """Stacks (id, label, views or cuts) of single clips into a batch, in a worker straight into shared memory."""
    ids, labels, views = zip(*items, strict=True)
    stacked = {
        modality: [default_collate(view) for view in zip(*(clip.get(modality, []) for clip in views), strict=True)]
        for modality in MODALITIES
    }
    draws = torch.stack([clip["draws"] for clip in views]) if "draws" in views[0] else None
    return Batch(list(ids), torch.tensor(labels), **stacked, draws=draws)


class _ClipViews(Dataset):
    """Items (id, label, views) for keys (epoch, index); each worker opens the store for itself."""

    def __init__(
        self,
        manifest_path: str | Path,
        chosen: tuple[str | None, str | None],
        views: TrainViews | EvalViews,
        seed: int | None,
    ):
        self.manifest_path, self.chosen, self.views, self.seed = Path(manifest_path), chosen, views, seed
        self.store = open_clips(self.manifest_path, *chosen)
        self.ids = list(self.store.ids)
        self.classes = sorted(set(manifest.read(self.manifest_path).rows["label"].astype(str)))
        numbers = {label: number for number, label in enumerate(self.classes)}
        self.labels = [numbers[str(label)] for label in self.store.labels]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> tuple[str, int, dict[str, list[Tensor]]]:
        epoch, index = key
        if get_worker_info() is not None:
            keep_freed_memory()
        if self.seed is None:
            views = self.views(self.store, index)
        else:
            generator = clip_generator(self.seed, epoch, self.ids[index])
            make = self.views.cut if self.views.on_device else self.views
            views = make(self.store, index, generator)
        return self.ids[index], self.labels[index], views

    def __getstate__(self) -> dict:
        return {**self.__dict__, "store": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.store = open_clips(self.manifest_path, *self.chosen)


class _Order(Sampler):
    """Keys (epoch, index) of one epoch, so that workers learn the epoch with each clip."""

    def __init__(self, clips: int, seed: int, shuffle: bool, first: int = 0):
        self.clips, self.seed, self.shuffle, self.first, self.epoch = clips, seed, shuffle, first, 0

    def __len__(self) -> int:
        return self.clips - self.first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.shuffle:
            order = torch.randperm(self.clips, generator=clip_generator(self.seed, self.epoch, "order")).tolist()
        else:
            order = range(self.first, self.clips)
        epoch = self.epoch
        return ((epoch, index) for index in order)
