"""Stage `embed`: media files to features, one row per clip."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import xkd
from xkd.data import listing
from xkd.data.parts import Parts, unfinished
from xkd.data.windows import Cutting, Survey
from xkd.device import device
from xkd.encoders import reading, tables
from xkd.encoders.columns import Columns, folders_of
from xkd.encoders.reading import Clip, Position
from xkd.errors import UserError
from xkd.files import check_output, files_in, replacing
from xkd.progress import counter, say

PART_ROWS, PART_BYTES = 512, 64e6  # a part is written when it has as many rows, or is as large


@dataclass(frozen=True)
class Options:
    """What is computed.

    Attributes:
        stride: seconds from the start of a clip to that of the next; None: the length of the shortest view.
        tokens: all patch tokens instead of their mean.
        per_file: one row per file, the mean of its clips.
        half: float16 instead of float32.
        fps: frames per second that video is read at; None: those that the encoder was trained with.
        crop: "centre": a square from the middle of the frames; "whole": the whole frames, squeezed into it.

    Raises:
        UserError: options that exclude each other.
    """

    stride: float | None = None
    tokens: bool = False
    per_file: bool = False
    half: bool = False
    fps: float | None = None
    crop: str = "centre"

    def __post_init__(self) -> None:
        if self.tokens and self.per_file:
            raise UserError("--per-file averages the vectors of a file's clips; leave out --tokens")


def run(
    encoder: Path,
    sources: tuple[Path, ...],
    output: Path,
    batch_size: int,
    force: bool = False,
    also: tuple[Path, ...] = (),
    owner: str = "student",
    workers: int | None = None,
    **options: Any,
) -> None:
    """Cuts every file into clips as long as a view of training, and writes their features.

    Rows are kept beside `output` as they are computed. If the work ends early, the same call continues it.

    A file that cannot be read to its end is named on standard error and gets no rows, and neither does a clip whose
    features are not finite; the others are finished.

    Args:
        encoder: folder of an encoder: column `vector`; or of a run: columns `video`, `audio` and `joint`.
        sources: media files, folders (searched to the bottom), or CSV files with a column `path`.
        output: Parquet file: file, start and end in seconds, and the features.
        batch_size: clips per forward pass.
        force: a file that is `output` already may be replaced, and unfinished work of another call thrown away; a
            source or a file of the encoder never is.
        also: folders of further encoders.
        owner: which encoders of a run.
        workers: processes that decode; None: one per core.
        options: see `Options`.

    Raises:
        UserError: no encoder, a source that does not exist, or not one readable file; `output` stays as it was.
    """
    chosen, folders = Options(**options), folders_of(encoder, also, owner)
    files = _files(sources)
    check_output(output, [*sources, *map(Path, files), *(f for e in folders.values() for f in files_in(e))], force)
    columns = Columns(folders, device(), chosen.fps, chosen.crop == "whole", chosen.tokens)
    if not files:
        raise UserError(f"{', '.join(map(str, sources))}: no files there")
    cutting = Cutting(tuple(columns.windows.values()), chosen.stride)
    made_with = {"version": xkd.__version__, "encoders": columns.hashes, "options": asdict(chosen)}
    made_with["files"] = _ids(files)
    with unfinished(output) as parts:
        if not _continued(parts, made_with, output, force):
            good, unread = reading.surveyed(files, cutting, workers)
            surveys = {file: astuple(survey) for file, survey in good.items()}
            parts.begin(made_with | {"surveys": surveys, "faults": unread})
        work = _Work(parts, cutting, chosen)
        work.compute(columns, batch_size, workers)
        work.finish(output)


class _Work:
    """The rows of one table, which wait in parts until all are there."""

    def __init__(self, parts: Parts, cutting: Cutting, options: Options) -> None:
        self.parts, self.cutting, self.options = parts, cutting, options
        self.surveys = {file: Survey(*values) for file, values in parts.plan["surveys"].items()}
        self.state = parts.state()
        self.faults: dict[str, str] = self.state.get("faults", {})  # of files that are not readable to their ends

    def compute(self, columns: Columns, batch_size: int, workers: int | None) -> None:
        """Reads what has no rows yet, and adds its rows; other processes read while this one computes."""
        begin, rows = Position(*self.state["at"]) if self.state else None, []
        half = self.options.half and not self.options.per_file  # means are rounded once
        clips = reading.clips_of(self.surveys, self.cutting, self.faults, workers, begin)
        with counter("clips", *self._amounts(begin), self.cutting.stride) as advance:
            for batch in reading.batches(clips, batch_size):
                rows.append(tables.table_of(batch, columns.features(batch), self.surveys, self.cutting, half))
                advance(len(batch))
                if sum(map(len, rows)) >= PART_ROWS or sum(table.nbytes for table in rows) >= PART_BYTES:
                    self._add(rows, batch[-1])
            if rows:
                self._add(rows, batch[-1])

    def finish(self, output: Path) -> None:
        """Writes the table, and says what it does not hold."""
        odd: dict[str, list[str]] = {}
        faults, files = self.parts.plan["faults"] | self.faults, len(self.parts.plan["files"])
        rows = tables.usable(self.parts.tables(), faults, odd)
        with replacing(output) as path:
            written = tables.write(tables.means(rows, self.options.half) if self.options.per_file else rows, path)
            reasons = faults | {f: tables.not_finite(times, self.surveys[f].clips) for f, times in odd.items()}
            for file, reason in reasons.items():
                print(f"xkd: left out: {file}: {reason}", file=sys.stderr)
            if not written:
                self.parts.remove()
                raise UserError(f"no clip could be read from {files} files ({_first(reasons)}); nothing written")
        self.parts.remove()
        left_out = f"{len(faults)} files left out" + (f", and clips of {len(odd)}" if odd else "")
        what = "means" if self.options.per_file else "clips"
        say(f"{output}: {written} {what} of {files - len(faults)} files; {left_out}")

    def _add(self, rows: list[pa.Table], last: Clip) -> None:
        self.parts.add(pa.concat_tables(rows), {"at": [last.file, last.number + 1], "faults": self.faults})
        rows.clear()

    def _amounts(self, begin: Position | None) -> tuple[int, int]:
        """Counts all clips, and those that come before `begin`."""
        clips = {file: survey.clips for file, survey in self.surveys.items()}
        files = list(clips)
        before = sum(clips[f] for f in files[: files.index(begin.file)]) + begin.clips if begin else 0
        if begin:
            say(f"continues: {before} of {sum(clips.values())} clips are done")
        return sum(clips.values()), before


def _continued(parts: Parts, made_with: dict[str, Any], output: Path, force: bool) -> bool:
    """Returns whether parts were begun by a call like this one; those of another call are refused without `force`."""
    wanted = json.loads(json.dumps(made_with))
    other = [name for name in wanted if parts.plan.get(name) != wanted[name]]
    if other and parts.plan and not force:
        raise UserError(
            f"{output}: a call with other {' and '.join(other)} did not finish it; repeat that call to continue it, or "
            f"begin anew with --force"
        )
    return not other


def _ids(files: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Returns size and time of each file, which tell whether it is still the same."""
    found = {}
    for file in files:
        with suppress(OSError, ValueError):
            about = os.stat(file)
            found[file] = about.st_size, about.st_mtime_ns
    return dict.fromkeys(files) | found


def _files(sources: Sequence[Path]) -> list[str]:
    files = [str(path) for source in sources for path in _files_of(source)]
    for file in files:
        if any("\ud800" <= letter <= "\udfff" for letter in file):  # how Python reads bytes that are no UTF-8
            raise UserError(f"{file!a}: a name that is not UTF-8; rename the file")
    return list(dict.fromkeys(files))


def _files_of(source: Path) -> list[Path]:
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.is_file())
        return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(source).parts))
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder")
    if source.suffix != ".csv":
        return [source]
    return listing.paths(source)


def _first(reasons: dict[str, str]) -> str:
    return "; ".join(f"{Path(file).name}: {reason}" for file, reason in list(reasons.items())[:3])
