"""Writes the clips of the embedded data set as media files: rendered and encoded clip by clip, on all cores."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from xkd import fingerprint
from xkd.data import encode, listing, synthetic
from xkd.data.synthetic import recordings
from xkd.data.synthetic.knobs import FPS, SAMPLE_RATE
from xkd.data.workers import Failure, run_guarded
from xkd.errors import UserError
from xkd.files import sha256
from xkd.made import Made
from xkd.progress import track
from xkd.settings import Dataset

MOST_CLIP_SECONDS = 120.0  # far more than a clip takes


def source_hash() -> str:
    """Returns a short hash of the code that makes a clip: another drawing is another data set."""
    sources = [*sorted(Path(synthetic.__file__).parent.glob("*.py")), Path(encode.__file__)]
    speech = [recordings.SPEECH / name for name in (recordings.SAMPLES, recordings.LIST)]
    parts = [*map(fingerprint.code_of_file, sources), *map(sha256, speech)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def generate(entry: Dataset, files: Made, processes: int | None = None) -> pd.DataFrame:
    """Writes the missing clips of a data set into the folder clips/ of `files`.

    Args:
        processes: by default one per core; the clips do not depend on it.

    Returns:
        the list of all clips, with paths relative to clips/.

    Raises:
        UserError: a clip cannot be written, a file that xkd did not make has its name, or this machine renders other
            clips than all others.
    """
    _check_arithmetic()
    folder = files.folder / "clips"
    wanted = [("train", i) for i in range(entry.train_clips)] + [("test", i) for i in range(entry.test_clips)]
    tasks = [
        (split, index, entry.seed, entry.paired, files.about([f"clips/{_name(split, index)}"]))
        for split, index in wanted
    ]
    made = track(run_guarded(make_clip, tasks, lambda _: MOST_CLIP_SECONDS, processes), "generate", total=len(tasks))
    rows = []
    for (split, index), about in zip(wanted, made, strict=True):
        path = folder / _name(split, index)
        if isinstance(about, Failure):
            raise UserError(f"{path}: could not be written: its process ended; is there memory and disk space left?")
        rows.append({"id": path.stem, "path": path.name, "split": split, **about})
    return pd.DataFrame(rows).reindex(columns=list(listing.LISTING_COLUMNS), fill_value="")


def make_clip(split: str, index: int, seed: int, paired: bool, files: Made) -> dict[str, str]:
    """Writes one clip unless it is there; returns its label and what it was made of."""
    clip = synthetic.render(split, index, seed, paired)
    path = files.folder / "clips" / _name(split, index)
    if not files.has(path):
        with files.writing(path) as temporary:
            encode.write_raw(temporary, clip.frames, FPS, clip.samples, SAMPLE_RATE)
    return {"label": clip.label, "video_source": clip.video_source, "audio_source": clip.audio_source}


def _check_arithmetic() -> None:
    found = synthetic.digest()
    if found != synthetic.DIGEST:
        raise UserError(
            f"this machine renders the embedded data set otherwise ({found}, not {synthetic.DIGEST}), and "
            "its figures would not compare with those of others; install the versions of constraints.txt, or report "
            "the processor"
        )


def _name(split: str, index: int) -> str:
    return f"{split}-{index:05d}.mov"
