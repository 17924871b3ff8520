"""Training-ready clips, by number: from shards or packed arrays where they were made, else from single files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xkd.data import manifest
from xkd.data.manifest import Manifest
from xkd.data.opening import MediaError
from xkd.data.packed import INDEX, Pack
from xkd.data.reader import ClipReader
from xkd.data.shards import open_shards
from xkd.errors import UserError
from xkd.files import sha256
from xkd.modalities import MODALITIES


def open_clips(manifest_path: str | Path, split: str | None = None, fold: str | None = None) -> ClipStore:
    """Opens the usable clips of a manifest, or of one of its splits, as an official fold has it if one is named.

    Raises:
        UserError: no manifest, no such fold; packed arrays that belong to another manifest.
    """
    return open_rows(manifest.read_manifest(manifest_path), split, fold)


def open_rows(whole: Manifest, split: str | None = None, fold: str | None = None) -> ClipStore:
    """Opens clips of a manifest that was read already, see `open_clips`."""
    return ClipStore(whole.split(split, fold) if split else whole)


class ClipStore:
    """Reads frames and audio of clips; the values are the same from shards, packed arrays and files.

    A copy in another process opens its own files.

    Attributes:
        ids, labels: of each clip, in manifest order.
        manifest: the rows behind it.
        shards: what they are read from, if it is there.
    """

    def __init__(self, rows: Manifest):
        self.manifest, self.ids, self.labels = rows, rows.column("id"), rows.column("label")
        self._paths, self._digests = rows.column("path"), rows.column("digest")
        self._seconds, self._fps, self._rates = map(rows.values, ("seconds", "fps", "sample_rate"))
        self._has = {m: rows.values(f"has_{m}") for m in MODALITIES}
        # The views of a clip are cut one after the other from one open file.
        self._last: tuple[tuple[int, int], ClipReader] | None = None
        self._checked = np.zeros(len(self.ids), bool)  # single files that this process has compared with their digests
        self._folder = rows.path.parent / "packed"
        self.shards = open_shards(rows.path, self.ids, self._digests)
        self._pack = Pack(self._folder) if (self._folder / INDEX).exists() and len(self) else None
        self._numbers = self._packed_numbers(self._pack, self._digests) if self._pack else []

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "_pack": self._pack is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pack = Pack(self._folder) if state["_pack"] else None

    def seconds(self, i: int) -> float:
        """Returns the length of clip `i`."""
        return float(self._seconds[i])

    def has(self, modality: str, i: int) -> bool:
        """Tells whether clip `i` has video or audio."""
        return bool(self._has[modality][i])

    def video(self, i: int, start_seconds: float = 0.0, seconds: float | None = None) -> Tensor:
        """Reads frames (T, 3, H, W) uint8, at clips.fps: all, or `seconds` from `start_seconds` on.

        A cut that reaches past the end is shorter, but holds at least the last frame.

        Raises:
            UserError: the clip has no video, or its file is missing or damaged.
        """
        self._need("video", i)
        first = round(start_seconds * self._fps[i])
        count = None if seconds is None else round(seconds * self._fps[i])
        if self.shards and self.shards.decoded:
            frames = self.shards.video(i, first, count)
        elif self._pack:
            frames = self._packed(i, lambda pack, number: pack.video(number, first, count))
        else:
            frames = self._decoded(i, lambda reader: reader.frames(first, count)).transpose(0, 3, 1, 2)
        return torch.from_numpy(frames)

    def audio(self, i: int, start_seconds: float = 0.0, seconds: float | None = None) -> Tensor:
        """Reads audio (samples,) float32 in [-1, 1]: all, or `seconds` from `start_seconds` on.

        Raises:
            UserError: the clip has no audio, or its file is missing or damaged.
        """
        self._need("audio", i)
        rate = self._rates[i]
        first, last = round(start_seconds * rate), round(self._seconds[i] * rate)
        count = last - first if seconds is None else min(round(seconds * rate), last - first)
        if self.shards and self.shards.decoded:
            cut = self.shards.audio(i, first, count)
        elif self._pack:
            cut = self._packed(i, lambda pack, number: pack.audio(number, first, count))
        else:
            cut = self._decoded(i, lambda reader: reader.samples(first, count))
        return torch.from_numpy(cut.astype(np.float32) / np.float32(32767))

    def _decoded(self, i: int, read: Callable[[ClipReader], np.ndarray]) -> np.ndarray:
        path = self.manifest.path.parent / self._paths[i]
        if not self.shards and not path.exists():
            raise UserError(f"clip {self.ids[i]}: {path} is missing; run prepare again")
        try:
            wanted = os.getpid(), i  # a worker shares its parent's open files, and must not read them
            if self._last is None or self._last[0] != wanted:
                self._last = wanted, ClipReader(self.shards.content(i) if self.shards else self._whole(i, path))
            return read(self._last[1])
        except MediaError as error:
            raise UserError(f"clip {self.ids[i]}: {path} cannot be read ({error}); run prepare again") from None

    def _whole(self, i: int, path: Path) -> Path:
        """Returns the file of clip `i`; compares it with its digest once, since a long one is read cut by cut."""
        if not self._checked[i]:
            if self._digests[i] and not sha256(path).startswith(self._digests[i]):
                raise MediaError("damaged: not the file that the manifest lists")
            self._checked[i] = True
        return path

    def _packed(self, i: int, read: Callable[[Pack, int], np.ndarray]) -> np.ndarray:
        assert self._pack is not None
        try:
            return read(self._pack, self._numbers[i])
        except MediaError as error:
            raise UserError(f"clip {self.ids[i]}: {error}; run prepare again") from None

    def _need(self, modality: str, i: int) -> None:
        if not self.has(modality, i):
            raise UserError(
                f"clip {self.ids[i]} has no {modality}; leave such clips out: datasets.<name>.require: {modality} or "
                "both"
            )

    def _packed_numbers(self, pack: Pack, digests: Sequence[str]) -> list[int]:
        for clip_id, digest in zip(self.ids, digests, strict=True):
            if pack.digest.get(clip_id) != digest:
                raise UserError(
                    f"{self._folder}: does not hold clip {clip_id} of {self.manifest.path}; run prepare again"
                )
        return [pack.number[clip_id] for clip_id in self.ids]
