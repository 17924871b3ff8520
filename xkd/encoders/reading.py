"""Features of media files, which are cut into consecutive clips as long as a view of training.

Other processes read them, since decoders of damaged media hang or crash.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from xkd.data import windows
from xkd.data.windows import TRACKS, Survey, Window
from xkd.data.workers import Failure, cores, run_guarded, seconds_allowed
from xkd.encoders.config import EncoderConfig
from xkd.encoders.pretrained import PretrainedEncoder
from xkd.progress import track

Readable = TypeVar("Readable")


def window_of(config: EncoderConfig) -> Window:
    """Returns how files are cut for an encoder."""
    return Window(config.modality, config.input.length, config.input.rate, config.pad)


def surveyed(files: Sequence[str], window: Window) -> tuple[dict[str, Survey], dict[str, str]]:
    """Returns the clips that each file will give, and for files that cannot be read the reason."""
    found = track(run_guarded(windows.survey, [(f, window) for f in files], seconds_allowed), "files", len(files))
    surveys = {file: _plain(result) for file, result in zip(files, found, strict=True)}
    faults = {file: result for file, result in surveys.items() if isinstance(result, str)}
    return {file: result for file, result in surveys.items() if isinstance(result, Survey)}, faults


def vectors_of(
    model: PretrainedEncoder, good: dict[str, Survey], window: Window, batch_size: int, faults: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Computes each file's features (clips, D), once its last clip is done; a file that fails goes to `faults`."""
    done: dict[str, list[np.ndarray]] = {}
    for batch in _batches(_views(model, good, window, faults), batch_size):
        with torch.inference_mode():
            vectors = model.encoder.features(torch.cat([view for _, view in batch])).float().cpu().numpy()
        for (file, _), vector in zip(batch, vectors, strict=True):
            done.setdefault(file, []).append(vector)
        # Files come one after the other: all but the last of the batch are complete, or have failed.
        for file in [file for file in done if file in faults or len(done[file]) == good[file].clips]:
            complete = done.pop(file)
            if file not in faults:
                yield file, np.stack(complete)


def _views(
    model: PretrainedEncoder, good: dict[str, Survey], window: Window, faults: dict[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Reads each clip's file and its view, in order; a file that cannot be read further is added to `faults`."""
    step = max(round(TRACKS[window.modality].seconds_at_once * window.rate / window.length), 1)
    tasks = [(f, window, i, min(step, s.clips - i)) for f, s in good.items() for i in range(0, s.clips, step)]
    results = track(run_guarded(windows.read_clips, tasks, seconds_allowed, spare=2 * cores()), "clips", len(tasks))
    for (file, *_), result in zip(tasks, results, strict=True):
        clips = _plain(result)
        if isinstance(clips, str):
            faults[file] = clips
        elif file not in faults:
            yield from ((file, _view(model, clip, window)) for clip in clips)


def _batches(views: Iterator[tuple[str, Tensor]], size: int) -> Iterator[list[tuple[str, Tensor]]]:
    while batch := list(itertools.islice(views, size)):
        yield batch


def _view(model: PretrainedEncoder, clip: np.ndarray, window: Window) -> Tensor:
    """Converts one clip to the network's input; done at once, since raw frames are large."""
    return model.view(torch.from_numpy(clip)[None], round(window.rate))


def _plain(result: Readable | str | Failure) -> Readable | str:
    return result.reason if isinstance(result, Failure) else result
