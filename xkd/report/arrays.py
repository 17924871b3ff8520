"""Arrays that pretraining saved for figures: samples.npz and embeddings.npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from xkd.errors import UserError
from xkd.report.collect import Results, Run

FULL_METHOD = "xkd"
Arrays = dict[str, np.ndarray]


def shown_run(results: Results, file: str, keys: list[str]) -> tuple[Run, Arrays] | None:
    """Finds the first seed of the full method if its `file` has all `keys`, else of the first ablation whose file has."""
    for ablation in sorted(results.runs, key=lambda name: name != FULL_METHOD):
        run = results.runs[ablation][0]
        arrays = load_arrays(run.folder / file)
        if all(key in arrays for key in keys):
            return run, arrays
    return None


def load_arrays(path: Path) -> Arrays:
    """Loads all arrays of a file.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: unreadable ({error}); remove it and pretrain that run again") from error
