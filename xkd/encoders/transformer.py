"""`XKDFeatures`: media files to vectors as a step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from xkd.data.windows import Cutting
from xkd.device import device
from xkd.encoders import reading
from xkd.encoders.columns import ALONE, Columns
from xkd.errors import UserError


class XKDFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Reads media files as `xkd embed` does and returns a vector for each, the mean over its clips.

    There is nothing to fit. Other processes decode: a script calls it below `if __name__ == "__main__":`.

    Args:
        encoder: folder of an encoder.
        batch_size: clips per forward pass, which runs on the GPU if there is one.
    """

    def __init__(self, encoder: str | Path, batch_size: int = 16) -> None:
        self.encoder = encoder
        self.batch_size = batch_size

    def fit(self, X: Iterable[str | Path], y: Any = None) -> XKDFeatures:
        """Returns itself."""
        return self

    def transform(self, X: Iterable[str | Path]) -> np.ndarray:
        """Computes the features of files, (files, D) float32.

        Args:
            X: their paths.

        Raises:
            UserError: no encoder, no files, or a file that cannot be read or has no finite features.
        """
        files = [] if isinstance(X, str) else [str(path) for path in X]
        if not files:
            raise UserError("XKDFeatures takes a list of paths of media files, at least one")
        try:
            means = self._means(list(dict.fromkeys(files)))
        except BrokenProcessPool:
            raise UserError(
                "no process could be started to decode; a script calls XKDFeatures below `if __name__ == '__main__':`"
            ) from None
        return np.stack([means[file] for file in files])

    def _means(self, files: list[str]) -> dict[str, np.ndarray]:
        columns = Columns({ALONE: Path(self.encoder)}, device())
        cutting = Cutting(tuple(columns.windows.values()))
        surveys, faults = reading.surveyed(files, cutting)
        _refuse(faults)
        vectors: dict[str, list[np.ndarray]] = {}
        for clips in reading.batches(reading.clips_of(surveys, cutting, faults), self.batch_size):
            for clip, vector in zip(clips, columns.features(clips)[ALONE].numpy(), strict=True):
                vectors.setdefault(clip.file, []).append(vector)
        _refuse(faults)
        means = {file: np.stack(found).mean(0) for file, found in vectors.items()}
        odd = {file: "features that are not finite" for file, mean in means.items() if not np.isfinite(mean).all()}
        _refuse(odd)
        return means

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit, tags.input_tags.two_d_array, tags.input_tags.string = False, False, True
        return tags


def _refuse(faults: dict[str, str]) -> None:
    for file, reason in faults.items():
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{file}: {reason}{more}; leave it out")
