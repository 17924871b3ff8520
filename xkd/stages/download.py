"""Stage `download`: settings of a data set -> raw media files and their index."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from xkd.data import catalogue, listing
from xkd.data.sources import acquire, youtube
from xkd.errors import UserError
from xkd.files import read_json, write_json
from xkd.made import Made, opened
from xkd.settings import Dataset, Params


def run(params: Params, dataset: str, out: Path) -> None:
    """Fetches or generates the raw files of `dataset`; writes out/index.csv last.

    Complete files are kept: fetched archives, unpacked ones, generated clips. out/source.json says what the files were
    made from. No other files in `out` are touched.

    Raises:
        UserError: unknown data set; source missing, damaged, not reachable, in `out` or around it; a bad list; other
            files in the way; another process at work in `out`.
    """
    entry = catalogue.entry(params, dataset)
    known = catalogue.known_datasets().get(entry.kind)
    if entry.source and not known and os.path.isdir(entry.source):
        _check_apart(Path(entry.source), out, dataset)
    with opened(out, "download") as files:
        _adopt_older(files, out)
        if known:
            files.check_free(out / "source.json", out / "index.csv")
        if known and known.generated:
            _generate(entry, dataset, out, files)
        else:
            _collect(entry, known, dataset, out, files)


def _check_apart(source: Path, out: Path, dataset: str) -> None:
    """Checks that the folder of clips and `out` do not hold each other: every media file in the former is a clip."""
    given, written = Path(os.path.realpath(source)), Path(os.path.realpath(out))
    if given.is_relative_to(written) or written.is_relative_to(given):
        raise UserError(
            f"datasets.{dataset}.source: {source} and --out {out} lie one in the other; "
            "move the clips or give another --out"
        )


def _adopt_older(files: Made, out: Path) -> None:
    """Lists what an earlier version wrote, which kept no journal, as far as it can be proved."""
    if not files.listed and {"dataset", "kind"} <= (_recipe(out) or {}).keys():
        files.adopt(out / "source.json")
        with suppress(OSError, ValueError):
            if (out / "index.csv").read_text().startswith(",".join(listing.LISTING_COLUMNS) + "\n"):
                files.adopt(out / "index.csv")


def _collect(entry: Dataset, known: catalogue.Facts | None, dataset: str, out: Path, files: Made) -> None:
    """Lists clips that exist: the user's own stay where they are, those of the paper's data sets are fetched."""
    table = acquire.clips_of(entry, dataset, out)
    table = listing.checked(acquire.limited(table, entry.limit), dataset)
    if known and known.own_clips and not entry.source:
        youtube.fetch_segments(table["id"].tolist(), out / acquire.SEGMENTS)
    if known and not entry.limit:
        _compare(dict(Counter(table["split"])), known.expected, known.title)
    files.check_free(out / "source.json", out / "index.csv")
    _note(files, out, {"dataset": dataset, "kind": entry.kind, "source": entry.source})
    _write_index(files, out, table)


def _compare(counts: dict[str, int], expected: dict[str, int], title: str) -> None:
    """Warns where the lists differ from a complete copy; `prepare` counts clips without a file."""
    if counts != expected:
        shown = ", ".join(f"{split} {counts.get(split, 0)} of {count}" for split, count in expected.items())
        print(f"xkd: {title}: the lists name another number of clips than the official ones ({shown})", file=sys.stderr)


def _generate(entry: Dataset, dataset: str, out: Path, files: Made) -> None:
    """Renders the clips of a generated data set, unless all are there as this code makes them."""
    from xkd.data import generate

    recipe = {
        "dataset": dataset,
        "kind": entry.kind,
        "seed": entry.seed,
        "paired": entry.paired,
        "code": generate.source_hash(),
    }
    if _recipe(out) != recipe:
        files.clear(out / "index.csv")
        files.sweep(out / "clips", keep=set())
        _note(files, out, recipe)
    elif _complete(out, entry, files):
        return
    table = generate.generate(entry, files)
    _write_index(files, out, listing.relative_to(out, table, out / "clips"))


def _note(files: Made, out: Path, made_from: dict[str, Any]) -> None:
    with files.writing(out / "source.json") as temporary:
        write_json(temporary, made_from)


def _write_index(files: Made, out: Path, table: pd.DataFrame) -> None:
    with files.writing(out / "index.csv") as temporary:
        listing.write_listing(temporary, table)


def _complete(out: Path, entry: Dataset, files: Made) -> bool:
    """Says whether the index lists exactly the clips asked for, and all are there as they were made."""
    try:
        table = listing.read_listing(out / "index.csv")
    except UserError:
        return False
    counts = table["split"].value_counts()
    right = (counts.get("train", 0), counts.get("test", 0)) == (entry.train_clips, entry.test_clips)
    return right and files.has(out / "index.csv") and all(files.has(out / path) for path in table["path"])


def _recipe(out: Path) -> dict[str, Any] | None:
    try:
        return read_json(out / "source.json")
    except (OSError, ValueError):
        return None
