"""Stage `embed`: media files to features, one row per clip."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from xkd.data import windows
from xkd.data.windows import Cut, Survey
from xkd.data.workers import Failure, cores, run_guarded, seconds_allowed
from xkd.downstream.features import device
from xkd.encoders.pretrained import PretrainedEncoder, load_encoder
from xkd.errors import UserError
from xkd.files import replacing
from xkd.progress import track

CLIPS_PER_TASK = {"video": 4, "audio": 100_000}  # sound is decoded whole, so a file is one task
COLUMNS = pa.schema(
    [("file", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("vector", pa.list_(pa.float32()))]
)


def run(encoder: Path, sources: tuple[Path, ...], output: Path, batch_size: int) -> None:
    """Cuts every file into consecutive clips as long as a view of training, and writes their features.

    A file that cannot be read to its end is named on standard error and gets no rows; the others are finished.

    Args:
        encoder: folder of an encoder.
        sources: media files, folders (searched to the bottom), or CSV files with a column `path`.
        output: Parquet file: file, start and end in seconds, vector (float32).
        batch_size: clips per forward pass.

    Raises:
        UserError: no encoder, a source that does not exist, or not one readable file; `output` stays as it was.
    """
    model = load_encoder(encoder).to(device())
    files = [str(path) for source in sources for path in _files(source)]
    if not files:
        raise UserError(f"{', '.join(map(str, sources))}: no files there")
    cut = _cut(model)
    found = track(run_guarded(windows.survey, [(f, cut) for f in files], seconds_allowed), "files", len(files))
    surveys = {file: _plain(result) for file, result in zip(files, found, strict=True)}
    faults = {file: result for file, result in surveys.items() if isinstance(result, str)}
    good = {file: result for file, result in surveys.items() if isinstance(result, Survey)}
    written = 0
    try:
        with replacing(output) as path, pq.ParquetWriter(path, COLUMNS) as writer:
            for file, vectors in _vectors(model, good, cut, batch_size, faults):
                writer.write_table(_rows(file, vectors, surveys[file], cut))
                written += len(vectors)
            if not written:
                raise UserError(f"no clip could be read from {len(files)} files ({_first(faults)}); nothing written")
    finally:
        for file, reason in faults.items():
            print(f"xkd: left out: {file}: {reason}", file=sys.stderr)
    print(
        f"{output}: {written} clips of {len(files) - len(faults)} files; {len(faults)} files left out", file=sys.stderr
    )


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not source.is_file():
        raise UserError(f"{source}: no such file or folder")
    if source.suffix != ".csv":
        return [source]
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    if "path" not in table:
        raise UserError(f"{source}: has no column 'path'; columns: {', '.join(table.columns)}")
    return [source.parent / path for path in table["path"]]


def _cut(model: PretrainedEncoder) -> Cut:
    view = model.config.input
    if model.config.modality == "video":
        return Cut("video", view.frames, view.fps)
    return Cut("audio", view.frames * view.logmel.hop, view.sample_rate)


def _vectors(
    model: PretrainedEncoder, good: dict[str, Survey], cut: Cut, batch_size: int, faults: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each file's features (clips, D), in order; a file that fails on the way is added to `faults` instead."""
    step = CLIPS_PER_TASK[cut.modality]
    tasks = [(f, cut, i, min(step, s.clips - i)) for f, s in good.items() for i in range(0, s.clips, step)]
    results = track(run_guarded(windows.read, tasks, seconds_allowed, spare=2 * cores()), "clips", len(tasks))
    waiting: list[Tensor] = []
    owners: list[str] = []
    done: dict[str, list[np.ndarray]] = {file: [] for file in good}
    for task, result in zip(tasks, results, strict=True):
        file, clips = task[0], _plain(result)
        if isinstance(clips, str):
            faults[file] = clips
            continue
        for clip in clips:
            waiting.append(_view(model, clip, cut))
            owners.append(file)
            if len(waiting) == batch_size:
                _flush(model, waiting, owners, done)
    _flush(model, waiting, owners, done)
    yield from ((file, np.stack(vectors)) for file, vectors in done.items() if file not in faults)


def _view(model: PretrainedEncoder, clip: np.ndarray, cut: Cut) -> Tensor:
    """One clip as the network's input; done at once, since raw pictures are large."""
    batch = torch.from_numpy(clip)[None]
    return model.video_view(batch) if cut.modality == "video" else model.audio_view(batch, round(cut.rate))


def _flush(model: PretrainedEncoder, waiting: list[Tensor], owners: list[str], done: dict) -> None:
    if waiting:
        with torch.inference_mode():
            vectors = model.encoder.features(torch.cat(waiting)).float().cpu().numpy()
        for owner, vector in zip(owners, vectors, strict=True):
            done[owner].append(vector)
    waiting.clear()
    owners.clear()


def _rows(file: str, vectors: np.ndarray, survey: Survey, cut: Cut) -> pa.Table:
    starts = np.arange(len(vectors)) * cut.length / cut.rate
    ends = np.minimum(starts + cut.length / cut.rate, max(survey.seconds, 1 / cut.rate))
    columns = {"file": [file] * len(vectors), "start": starts, "end": ends, "vector": list(vectors)}
    return pa.table(columns, schema=COLUMNS)


def _plain(result):
    return result.reason if isinstance(result, Failure) else result


def _first(faults: dict[str, str]) -> str:
    return "; ".join(f"{Path(file).name}: {reason}" for file, reason in list(faults.items())[:3])
