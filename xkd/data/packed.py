"""Keeps decoded clips in two flat files that are mapped into memory: nothing to decode while training.

INDEX says where in them each clip lies, and holds sums of their blocks: a process checks a block when first reading it.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from xkd import sums
from xkd.data.opening import MediaError
from xkd.errors import UserError
from xkd.files import digested, undigested
from xkd.modalities.video import frames_between

VIDEO, AUDIO, INDEX = "video.bin", "audio.bin", "index.npz"


class PackWriter:
    """Appends clips to the files VIDEO and AUDIO of a new folder; `close` writes INDEX."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder = folder
        self._video, self._audio = (folder / VIDEO).open("wb"), (folder / AUDIO).open("wb")
        self._rows: list[tuple[str, str, tuple[int, ...], int]] = []

    def add(self, clip_id: str, digest: str, video: np.ndarray | None, audio: np.ndarray | None) -> None:
        """Adds frames (T, 3, H, W) uint8 and samples (n,) int16; an absent stream takes no room."""
        if video is not None:
            self._video.write(np.ascontiguousarray(video).data)
        if audio is not None:
            self._audio.write(np.ascontiguousarray(audio).data)
        shape = video.shape if video is not None else (0, 0, 0, 0)
        self._rows.append((clip_id, digest, shape, len(audio) if audio is not None else 0))

    def close(self) -> None:
        """Writes INDEX and ends the pack."""
        self._video.close()
        self._audio.close()
        ids, digests, shapes, samples = zip(*self._rows, strict=True)
        blocks: dict[str, Any] = {f"sums_{name}": sums.of_file(self.folder / name) for name in (VIDEO, AUDIO)}
        index = io.BytesIO()
        np.savez(index, ids=ids, digests=digests, video_shape=shapes, audio_samples=samples, **blocks)
        (self.folder / INDEX).write_bytes(digested(index.getvalue()))


class Pack:
    """Reads clips by number, in the order in which they were added.

    Attributes:
        number: id -> number.
        digest: id -> digest of the clip file that was packed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            with np.load(io.BytesIO(undigested((folder / INDEX).read_bytes()))) as index:
                ids, digests = index["ids"].tolist(), index["digests"].tolist()
                self._shapes, samples = index["video_shape"], index["audio_samples"]
                self._sums = {name: index[f"sums_{name}"] for name in (VIDEO, AUDIO)}
            self._files = {name: sums.mapped(folder / name) for name in (VIDEO, AUDIO)}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: packed clips cannot be read ({error}); run prepare again") from None
        self._checked = {name: np.zeros(len(of_blocks), bool) for name, of_blocks in self._sums.items()}
        self._begins = {VIDEO: _begins(self._shapes.prod(axis=1)), AUDIO: _begins(2 * samples)}
        if any(self._begins[name][-1] != len(content) for name, content in self._files.items()):
            raise UserError(f"{folder}: packed clips are incomplete; run prepare again")
        self.number = {clip_id: number for number, clip_id in enumerate(ids)}
        self.digest = dict(zip(ids, digests, strict=True))

    def video(self, number: int, first: int, count: int | None) -> np.ndarray:
        """Reads frames (T, 3, H, W) uint8, `count` from number `first` on; at least the last.

        Raises:
            MediaError: they are damaged.
        """
        frames, *shape = self._shapes[number].tolist()
        wanted, size = frames_between(first, count, frames), math.prod(shape)
        return self._read(VIDEO, number, wanted.start * size, wanted.stop * size).reshape(-1, *shape)

    def audio(self, number: int, first: int, count: int) -> np.ndarray:
        """Reads samples (n,) int16, at most `count` from number `first` on.

        Raises:
            MediaError: they are damaged.
        """
        return self._read(AUDIO, number, 2 * first, 2 * (first + count)).view(np.int16)

    def check(self) -> dict[Path, bool]:
        """Tells of each file whether all of it is as it was written."""
        return {
            self.folder / name: bool((sums.of_file(self.folder / name) == s).all()) for name, s in self._sums.items()
        }

    def _read(self, name: str, number: int, first: int, stop: int) -> np.ndarray:
        """Copies bytes of a clip, which end where it ends."""
        start, end = self._begins[name][number : number + 2].tolist()
        begin, end = min(start + first, end), min(start + stop, end)
        content = self._files[name]
        low, high = sums.around(begin, end, len(content))
        checked = self._checked[name][low // sums.BLOCK : -(-high // sums.BLOCK)]
        if not checked.all():
            if not sums.fit(content[low:high], low, self._sums[name]):
                raise MediaError(f"damaged in {self.folder / name}")
            checked[:] = True
        return content[begin:end].copy()


def _begins(lengths: np.ndarray) -> np.ndarray:
    """Returns where each of several stretches begins, and where the last one ends."""
    return np.insert(np.cumsum(lengths), 0, 0)
