"""Stage `embed`: media files to features, one row per clip."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xkd.data import listing
from xkd.data.windows import Survey, Window
from xkd.downstream.features import device
from xkd.encoders import reading
from xkd.encoders.pretrained import load_encoder
from xkd.errors import UserError
from xkd.files import check_output, files_in, replacing
from xkd.progress import say

EMBED_COLUMNS = pa.schema(
    [("file", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("vector", pa.list_(pa.float32()))]
)


def run(encoder: Path, sources: tuple[Path, ...], output: Path, batch_size: int, force: bool = False) -> None:
    """Cuts every file into consecutive clips as long as a view of training, and writes their features.

    A file that cannot be read to its end is named on standard error and gets no rows, and neither does a clip whose
    features are not finite; the others are finished.

    Args:
        encoder: folder of an encoder.
        sources: media files, folders (searched to the bottom), or CSV files with a column `path`.
        output: Parquet file: file, start and end in seconds, vector (float32).
        batch_size: clips per forward pass.
        force: a file that is `output` already may be replaced; a source or a file of the encoder never is.

    Raises:
        UserError: no encoder, a source that does not exist, or not one readable file; `output` stays as it was.
    """
    files = [str(path) for source in sources for path in _files(source)]
    for file in files:
        if any("\ud800" <= letter <= "\udfff" for letter in file):  # how Python reads bytes that are no UTF-8
            raise UserError(f"{file!a}: a name that is not UTF-8; rename the file")
    check_output(output, [*sources, *map(Path, files), *files_in(encoder)], force)
    model = load_encoder(encoder).to(device())
    if not files:
        raise UserError(f"{', '.join(map(str, sources))}: no files there")
    window = reading.window_of(model.config)
    good, faults = reading.surveyed(files, window)
    written, odd = 0, {}
    try:
        with replacing(output) as path, pq.ParquetWriter(path, EMBED_COLUMNS) as writer:
            for file, vectors in reading.vectors_of(model, good, window, batch_size, faults):
                rows, finite = _rows(file, vectors, good[file], window), np.isfinite(vectors).all(axis=1)
                if not finite.all():
                    odd[file] = _not_finite(rows.filter(pa.array(~finite)), len(vectors))
                writer.write_table(rows.filter(pa.array(finite)))
                written += int(finite.sum())
            if not written:
                first = _first(faults | odd)
                raise UserError(f"no clip could be read from {len(files)} files ({first}); nothing written")
    finally:
        for file, reason in [*faults.items(), *odd.items()]:
            print(f"xkd: left out: {file}: {reason}", file=sys.stderr)
    left_out = f"{len(faults)} files left out" + (f", and clips of {len(odd)}" if odd else "")
    say(f"{output}: {written} clips of {len(files) - len(faults)} files; {left_out}")


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder")
    if source.suffix != ".csv":
        return [source]
    return listing.paths(source)


def _rows(file: str, vectors: np.ndarray, survey: Survey, window: Window) -> pa.Table:
    starts = np.arange(len(vectors)) * window.length / window.rate
    ends = np.minimum(starts + window.length / window.rate, max(survey.seconds, 1 / window.rate))
    columns = {"file": [file] * len(vectors), "start": starts, "end": ends, "vector": list(vectors)}
    return pa.table(columns, schema=EMBED_COLUMNS)


def _not_finite(rows: pa.Table, clips: int) -> str:
    times = ", ".join(f"{row['start']:g} to {row['end']:g} s" for row in rows.slice(0, 3).to_pylist())
    more = ", ..." if rows.num_rows > 3 else ""
    return (
        f"{rows.num_rows} of {clips} clips ({times}{more}): features that are not finite, "
        "from such values in the file or weights that overflow"
    )


def _first(faults: dict[str, str]) -> str:
    return "; ".join(f"{Path(file).name}: {reason}" for file, reason in list(faults.items())[:3])
