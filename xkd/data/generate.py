"""The embedded data sets as media files: rendered and encoded clip by clip, on all cores."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from xkd.data import encode, listing, synthetic
from xkd.data.synthetic.knobs import FPS, PICTURE, SAMPLE_RATE
from xkd.data.workers import Failure, run_guarded
from xkd.errors import UserError
from xkd.made import Made
from xkd.progress import track
from xkd.settings import Dataset

CLIP_SECONDS = 120.0  # far more than a clip takes


def source_hash() -> str:
    """Short hash of the code that makes a clip: another drawing is another data set."""
    folder = Path(synthetic.__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.py")), Path(encode.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def generate(entry: Dataset, files: Made, archive: Path | None, processes: int | None = None) -> pd.DataFrame:
    """Writes the missing clips of a data set into the folder clips/ of `files`; returns its list, paths relative to that.

    Raises:
        UserError: a clip cannot be written, or a file that xkd did not make has its name.
    """
    folder = files.folder / "clips"
    wanted = [("train", i) for i in range(entry.train_clips)] + [("test", i) for i in range(entry.test_clips)]
    tasks = [
        (
            entry.kind,
            split,
            index,
            entry.seed,
            str(archive) if archive else None,
            files.about([f"clips/{_name(split, index)}"]),
        )
        for split, index in wanted
    ]
    facts = track(run_guarded(make_clip, tasks, lambda _: CLIP_SECONDS, processes), "generate", total=len(tasks))
    rows = []
    for (split, index), fact in zip(wanted, facts, strict=True):
        path = folder / _name(split, index)
        if isinstance(fact, Failure):
            raise UserError(f"{path}: could not be written: its process ended; is there memory and disk space left?")
        rows.append({"id": path.stem, "path": path.name, "split": split, **fact})
    return pd.DataFrame(rows).reindex(columns=list(listing.LISTING_COLUMNS), fill_value="")


def make_clip(kind: str, split: str, index: int, seed: int, archive: str | None, files: Made) -> dict[str, str]:
    """Writes one clip unless it is there; returns its label and what it was made of."""
    clip = synthetic.render(kind, split, index, seed, archive)
    path = files.folder / "clips" / _name(split, index)
    if not files.has(path):
        size = (PICTURE.canvas, PICTURE.canvas)
        with files.writing(path) as temporary:
            encode.write_clip(temporary, clip.frames, FPS, size, clip.waveform, SAMPLE_RATE)
    return {"label": clip.label, "video_source": clip.video_source, "audio_source": clip.audio_source}


def _name(split: str, index: int) -> str:
    return f"{split}-{index:05d}.mp4"
