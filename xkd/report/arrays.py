"""Arrays that pretraining saved for figures: samples.npz and embeddings.npz."""

from __future__ import annotations

import numpy as np

from xkd.report.collect import Results, Run
from xkd.runs.records import read_arrays

FULL_METHOD = "xkd"
Arrays = dict[str, np.ndarray]


def shown_run(results: Results, file: str, keys: list[str]) -> tuple[Run, Arrays] | None:
    """Finds the first seed of the full method, or else of the first other ablation, whose `file` has all `keys`.

    Rows that are pretrained on other data come last: their arrays are about clips of those.
    """
    for ablation in sorted(results.runs, key=lambda name: (results.elsewhere(name), name != FULL_METHOD)):
        run = results.runs[ablation][0]
        arrays = read_arrays(run.folder / file)
        if all(key in arrays for key in keys):
            return run, arrays
    return None
