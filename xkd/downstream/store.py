"""Features on disk: extracted once per encoder, data set and views, shared by tasks, and continued after a stop.

A folder per data set, split and views holds three files per network: `<owner>_<modality>.f32` (or `.f16`), the features
of the manifest's clips in its order; `<owner>_<modality>.sums`, a sum of each clip's bytes; and
`<owner>_<modality>.json`, their origin. Features of another origin, and those from the first damaged clip on, are
extracted again. The folder may be deleted at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xkd import sums
from xkd.downstream.features import ClipOutputs, Extractors, Key, check_finite, incomplete, of_rows, outputs_of
from xkd.files import locked, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

    from xkd.data.loader import Batch

SUMS, ABOUT = ".sums", ".json"


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
        clips: how many are there whole and undamaged; one that was being written when a process stopped does not count.
    """

    def __init__(self, folder: Path, key: Key, origin: dict[str, Any], kind: type[np.floating[Any]]) -> None:
        self.kind = np.dtype(kind)
        suffixes = f".f{8 * self.kind.itemsize}", SUMS, ABOUT
        self._values, self._sums, self._about = (folder / f"{key[0]}_{key[1]}{suffix}" for suffix in suffixes)
        self._origin, self._shape, self.clips = origin, (0, 0), 0
        try:
            about = read_json(self._about)
            if about["origin"] == origin:
                self._shape = about["views"], about["width"]
                self.clips, written = whole_clips(self._values, self._bytes)
                if self.clips < written:
                    _warn(f"{self._values}: damaged from clip {self.clips} of {written} on; these are extracted again")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError) as error:
            _warn(f"{self._about}: {error}; these features are extracted again")

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
        with self._values.open("ab") as handle, self._sums.open("ab") as beside:
            handle.truncate(first * self._bytes)
            beside.truncate(first * sums.WORD)
            self.clips = first

            def append(values: np.ndarray) -> None:
                if self.clips == 0:
                    self._shape = values.shape[1:]
                    about = {"origin": self._origin, "views": self._shape[0], "width": self._shape[1]}
                    write_json(self._about, about, sealed=True)
                rows = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
                handle.write(rows.data)
                beside.write(sums.of_rows(rows).data)
                self.clips += len(values)

            yield append


def whole_clips(values: Path, size: int) -> tuple[int, int]:
    """Returns how many clips of a file are whole and undamaged from the first on, and how many were written.

    Args:
        values: the features, with their sums beside.
        size: bytes of a clip's features.

    Raises:
        FileNotFoundError: one of the two is missing.
    """
    content, of_clips = sums.mapped(values), np.fromfile(values.with_suffix(SUMS), np.uint64)
    written = min(len(content) // size, len(of_clips))
    step = max(sums.AT_ONCE // size, 1)
    for first in range(0, written, step):
        rows = content[first * size : min(first + step, written) * size].reshape(-1, size)
        odd = np.flatnonzero(sums.of_rows(rows) != of_clips[first : first + len(rows)])
        if len(odd):
            return first + int(odd[0]), written
    return written, written


def damaged(of_clips: Path) -> str:
    """Returns what is wrong with the features that a file of sums is about; empty if nothing is.

    Raises:
        OSError, ValueError, KeyError: what is beside it cannot be read.
    """
    about = read_json(of_clips.with_suffix(ABOUT))
    (values,) = of_clips.parent.glob(f"{of_clips.stem}.f*")
    whole, written = whole_clips(values, about["views"] * about["width"] * int(values.suffix[2:]) // 8)
    return f"features are damaged from clip {whole} of {written} on" if whole < written else ""


def _warn(message: str) -> None:
    print(f"xkd: warning: {message}", file=sys.stderr)
