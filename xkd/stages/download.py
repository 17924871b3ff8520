"""Stage `download`: catalogue entry -> raw media files and their index."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from xkd.data import catalogue, listing
from xkd.data.sources import acquire, youtube
from xkd.data.sources.layouts import class_folders
from xkd.errors import UserError
from xkd.files import write_json
from xkd.settings import Dataset, Params


def run(params: Params, dataset: str, out: Path) -> None:
    """Fetches or generates the raw files of `dataset`; writes out/index.csv last.

    What is complete is kept: fetched archives, unpacked ones, generated clips. What the files were made from stands in
    out/source.json.

    Raises:
        UserError: unknown data set; source missing, damaged or not reachable; a bad list.
    """
    entry = catalogue.entry(params, dataset)
    if entry.kind in catalogue.EMBEDDED:
        _generated(entry, dataset, out)
    else:
        _collected(entry, dataset, out)


def _collected(entry: Dataset, dataset: str, out: Path) -> None:
    """Clips that exist: the user's own stay where they are, those of the paper's sets are fetched."""
    known = catalogue.facts().get(entry.kind)
    if known:
        table = acquire.clips_of(entry.kind, known, entry.source, out)
    else:
        table = _own(entry, dataset, out)
    table = listing.checked(acquire.limited(listing.completed(table), entry.limit), dataset)
    if known and known.own_clips and not entry.source:
        youtube.fetch_segments(table["id"].tolist(), out / acquire.SEGMENTS)
    if known and not entry.limit:
        _compare(dict(Counter(table["split"])), known.expected, known.title)
    write_json(out / "source.json", {"dataset": dataset, "kind": entry.kind, "source": entry.source})
    listing.write(out / "index.csv", table)


def _own(entry: Dataset, dataset: str, out: Path) -> pd.DataFrame:
    if not entry.source:
        wanted = "the folder of the clips" if entry.kind == "folder" else "the CSV that lists the clips, column 'path'"
        raise UserError(f"datasets.{dataset}.source: give {wanted}")
    source = Path(entry.source)
    if entry.kind == "manifest":
        return listing.relative_to(out, listing.read(source), source.parent)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder (datasets.{dataset}.source); a CSV needs kind: manifest")
    return listing.relative_to(out, class_folders(source), source)


def _compare(counts: dict[str, int], expected: dict[str, int], title: str) -> None:
    """Says where the lists differ from a complete copy; clips without a file are counted by `prepare`."""
    if counts != expected:
        shown = ", ".join(f"{split} {counts.get(split, 0)} of {count}" for split, count in expected.items())
        print(f"xkd: {title}: the lists name another number of clips than the official ones ({shown})", file=sys.stderr)


def _generated(entry: Dataset, dataset: str, out: Path) -> None:
    from xkd.data import generate
    from xkd.data.download import spoken_digits_archive

    archive = spoken_digits_archive(entry.source, out / "archive") if entry.kind == "spoken_digits" else None
    recipe = {"dataset": dataset, "kind": entry.kind, "seed": entry.seed, "code": generate.source_hash()}
    if _recipe(out) != recipe:
        (out / "index.csv").unlink(missing_ok=True)
        shutil.rmtree(out / "clips", ignore_errors=True)
        write_json(out / "source.json", recipe)
    elif _complete(out, entry):
        return
    table = generate.generate(entry, out / "clips", archive)
    listing.write(out / "index.csv", listing.relative_to(out, table, out / "clips"))


def _complete(out: Path, entry: Dataset) -> bool:
    """Whether the index lists exactly the clips asked for, and all are there."""
    try:
        table = listing.read(out / "index.csv")
    except UserError:
        return False
    counts = table["split"].value_counts()
    right = (counts.get("train", 0), counts.get("test", 0)) == (entry.train_clips, entry.test_clips)
    return right and all((out / path).exists() for path in table["path"])


def _recipe(out: Path) -> dict[str, Any] | None:
    try:
        recipe: dict[str, Any] = json.loads((out / "source.json").read_text())
        return recipe
    except (OSError, ValueError):
        return None
