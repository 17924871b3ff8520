"""Features on disk: extracted once per encoder, data set and views, shared by tasks, and continued after a stop.

A folder per data set, split and views holds two files per network: `<owner>_<modality>.f32` (or `.f16`), the features
of the manifest's clips in its order, and `<owner>_<modality>.json`, their origin. Features of another origin are
extracted again. The folder may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xkd.downstream.features import ClipOutputs, Extractors, Key, check_finite, incomplete, of_rows, outputs_of
from xkd.files import locked, write_json

if TYPE_CHECKING:
    import pandas as pd

    from xkd.data.loader import Batch


def stored(
    folder: Path,
    networks: Extractors,
    origins: dict[Key, dict[str, Any]],
    rows: pd.DataFrame,
    batches_from: Callable[[int, list[Key]], Iterable[Batch]],
    precision: str = "float32",
    half: bool = False,
) -> ClipOutputs:
    """Returns features of `rows` by every network; extracts those that `folder` lacks batch by batch and keeps them.

    Args:
        folder: of this data set, split and views; one process at a time works in it.
        networks: as for `outputs_of`.
        origins: per network, all that decides its features (weights, clips, views, code).
        rows: the manifest's rows of the clips (id, label, video_source, audio_source).
        batches_from: batches for these networks from the n-th row on, in order.
        precision: of `outputs_of`, a part of the origins.
        half: keep float16 in every precision.

    Raises:
        UserError: the batches do not bring the clips of `rows`.
    """
    ids = rows["id"].tolist()
    with _alone(folder):
        kind = np.float32 if precision == "float32" and not half else np.float16
        files = {key: _File(folder, key, origins[key], kind) for key in networks}
        left = {key: file for key, file in files.items() if file.clips < len(ids)}
        if left:
            first = min(file.clips for file in left.values())
            batches = batches_from(first, list(left))
            _extract(left, outputs_of({key: networks[key] for key in left}, batches, precision), ids, first)
        return of_rows(rows, {key: file.read() for key, file in files.items()})


def _extract(
    files: dict[Key, _File], outputs: Iterable[tuple[list[str], dict[Key, np.ndarray]]], ids: list[str], first: int
) -> None:
    done = first
    with ExitStack() as opened:
        appends = {key: opened.enter_context(file.appending(first)) for key, file in files.items()}
        for came, found in outputs:
            if came != ids[done : done + len(came)]:
                raise incomplete(came, ids[done : done + len(came)])
            for key, values in found.items():
                appends[key](check_finite(_rounded(values, files[key].kind), came, " ".join(key)))
            done += len(came)
    if done < len(ids):
        raise incomplete(ids[:done], ids)


def _rounded(values: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity then, which is refused
        return values.astype(kind)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for another task of the same run that is extracting."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        yield


class _File:
    """One network's features (clips, views, D).

    Attributes:
        kind: of the numbers.
        clips: how many are there whole; a clip that was being written when a process stopped does not count.
    """

    def __init__(self, folder: Path, key: Key, origin: dict[str, Any], kind: type[np.floating[Any]]) -> None:
        self.kind = np.dtype(kind)
        suffixes = f".f{8 * self.kind.itemsize}", ".json"
        self._values, self._about = (folder / f"{key[0]}_{key[1]}{suffix}" for suffix in suffixes)
        self._origin, self._shape, self.clips = origin, (0, 0), 0
        if self._values.is_file() and self._about.is_file():
            about = json.loads(self._about.read_text())
            if about["origin"] == origin:
                self._shape = about["views"], about["width"]
                self.clips = self._values.stat().st_size // self._bytes

    @property
    def _bytes(self) -> int:
        return self._shape[0] * self._shape[1] * self.kind.itemsize

    def read(self) -> np.ndarray:
        """Returns all features, mapped into memory."""
        return np.memmap(self._values, self.kind, "r", shape=(self.clips, *self._shape))

    @contextmanager
    def appending(self, first: int) -> Iterator[Callable[[np.ndarray], None]]:
        """Yields a function that adds the features (B, views, D) of the next clips, from number `first` on."""
        if first == 0:
            for earlier in self._values.parent.glob(f"{self._values.stem}.f*"):
                earlier.unlink()
        with self._values.open("ab") as handle:
            handle.truncate(first * self._bytes)
            self.clips = first

            def append(values: np.ndarray) -> None:
                if self.clips == 0:
                    self._shape = values.shape[1:]
                    write_json(self._about, {"origin": self._origin, "views": self._shape[0], "width": self._shape[1]})
                handle.write(np.ascontiguousarray(values).data)
                self.clips += len(values)

            yield append
