"""Keeps decoded clips in two flat files that are mapped into memory: nothing to decode while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xkd.errors import UserError

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
        np.savez(self.folder / INDEX, ids=ids, digests=digests, video_shape=shapes, audio_samples=samples)


class Pack:
    """Reads clips by number, in the order in which they were added.

    Attributes:
        number: id -> number.
        digest: id -> digest of the clip file that was packed.
    """

    def __init__(self, folder: Path):
        try:
            with np.load(folder / INDEX) as index:
                ids, digests = index["ids"].tolist(), index["digests"].tolist()
                self._shapes, samples = index["video_shape"], index["audio_samples"]
            self._video, self._audio = _mapped(folder / VIDEO, np.uint8), _mapped(folder / AUDIO, np.int16)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: packed clips cannot be read ({error}); run prepare again") from None
        self._video_bounds = np.cumsum([0, *self._shapes.prod(axis=1)])
        self._audio_bounds = np.cumsum([0, *samples])
        if (self._video_bounds[-1], self._audio_bounds[-1]) != (len(self._video), len(self._audio)):
            raise UserError(f"{folder}: packed clips are incomplete; run prepare again")
        self.number = {clip_id: number for number, clip_id in enumerate(ids)}
        self.digest = dict(zip(ids, digests, strict=True))

    def video(self, number: int) -> np.ndarray:
        """Returns frames (T, 3, H, W) uint8, a view of the file."""
        first, end = self._video_bounds[number : number + 2]
        return self._video[first:end].reshape(self._shapes[number])

    def audio(self, number: int) -> np.ndarray:
        """Returns samples (n,) int16, a view of the file."""
        first, end = self._audio_bounds[number : number + 2]
        return self._audio[first:end]


def _mapped(path: Path, dtype: type) -> np.ndarray:
    # A plain array: to cut a memmap takes several times as long.
    return np.memmap(path, dtype, "r").view(np.ndarray) if path.stat().st_size else np.empty(0, dtype)
