"""Stage `download`: catalogue entry -> raw media files and their index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from xkd.data import catalogue, listing
from xkd.errors import UserError
from xkd.files import write_json
from xkd.settings import Dataset, Params


def run(params: Params, dataset: str, out: Path) -> None:
    """Fetches or generates the raw files of `dataset`; writes out/index.csv last.

    A second call with the same settings keeps what is complete. What a file was made from
    stands in out/source.json.

    Raises:
        UserError: unknown data set; source missing, damaged or not reachable; a bad list.
    """
    entry = catalogue.entry(params, dataset)
    if entry.kind == "folder":
        _own_files(entry, dataset, out)
    else:
        _generated(entry, dataset, out)


def _own_files(entry: Dataset, dataset: str, out: Path) -> None:
    """The user's files stay where they are; the index points to them."""
    if not entry.source:
        raise UserError(f"datasets.{dataset}.source: give the CSV that lists the clips (at least a column 'path')")
    listed = Path(entry.source)
    table = listing.relative_to(out, listing.read(listed), listed.parent)
    write_json(out / "source.json", {"dataset": dataset, "kind": entry.kind, "source": entry.source})
    listing.write(out / "index.csv", table)


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


def _recipe(out: Path) -> dict | None:
    try:
        return json.loads((out / "source.json").read_text())
    except (OSError, ValueError):
        return None
