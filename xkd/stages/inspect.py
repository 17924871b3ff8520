"""Stage `inspect`: shows what a prepared data set holds, in numbers and images."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from xkd import made
from xkd.data import catalogue, manifest
from xkd.data.clips import open_clips
from xkd.data.contact_sheet import draw_contact_sheet, draw_histograms
from xkd.errors import UserError
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.progress import counter
from xkd.settings import Params

MOST_REASONS, MOST_EXAMPLES = 12, 3
NUMBER = r"(?<![\w.-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)"  # a word of its own: not those in "h264" or "s1.wav"


def run(params: Params, dataset: str, out: Path | None, clips: int) -> None:
    """Prints a summary of data/<dataset>; writes contact-sheet.png and histograms.png.

    Args:
        dataset: name in the settings.
        out: folder for the images, by default data/<dataset>/inspect.
        clips: rows of the contact sheet.

    Raises:
        UserError: no such data set, not prepared yet, or no usable clip.
    """
    entry = catalogue.entry(params, dataset)
    folder = Path("data") / dataset
    found = manifest.read_manifest(folder / "manifest.csv")
    if found.rows.empty:
        raise UserError(f"{found.path}: no usable clip; look at its column reason")
    known = catalogue.known_datasets().get(entry.kind)
    lines = [f"{dataset}: {known.title}, {known.homepage}" if known else f"{dataset}: {entry.kind}"]
    if known:
        lines += [f"  licence   {known.licence}", f"  cite      {known.citation}"]
    classes = manifest.class_counts(found.all_rows)
    print("\n".join([*lines, *_counts(found, classes), *_clips(found.rows), *_unusable(found.all_rows)]))
    out = out or folder / "inspect"
    sheet, histograms = out / "contact-sheet.png", out / "histograms.png"
    store = open_clips(found.path)
    with made.opened(out, "inspect") as files, counter("images", total=2) as advance:
        files.check_free(sheet, histograms)
        with files.writing(sheet) as path:
            draw_contact_sheet(store, clips, LogMelSpectrogram(params.logmel, params.clips.sample_rate), path)
        advance(1)
        sizes = [_size(found.path.parent / path) for path in found.rows["path"]]
        with files.writing(histograms) as path:
            draw_histograms(found.rows, sizes, classes, path)
        advance(1)
    print(f"  drawn     {sheet}, {histograms}")


def _size(clip: Path) -> int:
    try:
        return clip.stat().st_size
    except OSError as error:
        raise UserError(f"{clip}: cannot be read ({error.strerror}); run prepare again") from None


def _counts(found: manifest.Manifest, classes: dict[str, dict[str, int]]) -> list[str]:
    there = (found.all_rows["reason"] != "missing").sum()
    per_class = [counts["usable"] for label, counts in classes.items() if label]
    lines = [
        f"  manifest  {found.hash}",
        f"  clips     {len(found.all_rows)} expected, {there} found, {len(found.rows)} usable",
        "  splits    " + ", ".join(f"{split} {count}" for split, count in found.rows["split"].value_counts().items()),
    ]
    if per_class:
        lines.append(f"  classes   {len(per_class)}, with {min(per_class)} to {max(per_class)} usable clips each")
    return lines


def _clips(rows: pd.DataFrame) -> list[str]:
    seconds = rows["seconds"].astype(float)
    spread = f"{seconds.min():.2f} to {seconds.max():.2f}, median {seconds.median():.2f}"
    lines = [
        f"  seconds   {spread}, {seconds.sum() / 3600:.2f} hours in all",
        f"  streams   video in {rows['has_video'].sum()}, audio in {rows['has_audio'].sum()}",
    ]
    videos = rows[rows["has_video"]]
    if len(videos):
        sizes = (videos["width"].astype(str) + " x " + videos["height"].astype(str)).value_counts()
        shown = ", ".join(f"{size} ({count})" for size, count in sizes.head(3).items())
        lines.append(f"  frames    {shown}" + (f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""))
    return lines


def _unusable(rows: pd.DataFrame) -> list[str]:
    """Counts the clips that were left out by reason; reasons that differ in their numbers only count as one."""
    unusable = rows[rows["status"] != "ok"]
    kinds = unusable["reason"].str.replace(NUMBER, "\0", regex=True)
    counts, lines = kinds.value_counts(), []
    for kind in counts.index[:MOST_REASONS]:
        of_kind = unusable[kinds == kind]
        examples = ", ".join(of_kind["id"].head(MOST_EXAMPLES))
        lines.append(f"  left out  {len(of_kind)} {_with_ranges(of_kind['reason'].tolist())}, e.g. {examples}")
    others = counts.iloc[MOST_REASONS:]
    if len(others):
        lines.append(
            f"  left out  {others.sum()} for {len(others)} other reasons; see the column reason of manifest.csv"
        )
    return lines


def _with_ranges(reasons: list[str]) -> str:
    """Merges reasons that differ in their numbers only: "0.21 to 1.98" where a number varies."""
    columns = zip(*(re.findall(NUMBER, reason) for reason in reasons), strict=True)
    spans = (sorted(set(column), key=float) for column in columns)
    shown = iter([span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans])
    return re.sub(NUMBER, lambda _: next(shown), reasons[0])
