"""Stage `doctor`: what is in clips, and what does not fit the settings or an encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from xkd import csv_files
from xkd.data import catalogue, checkup, listing, manifest
from xkd.data.finding import Clip, Expected, Finding, named
from xkd.data.measure import Measured, Moments, Spectrum, measure_file, measure_prepared
from xkd.data.sources.layouts import FOLDERS_OF_SPLITS
from xkd.data.sources.tree import Tree
from xkd.data.workers import FILE_SECONDS, Failure, run_guarded, seconds_allowed
from xkd.encoders import folder
from xkd.encoders.config import VideoInput
from xkd.errors import UserError
from xkd.files import check_output, files_in, write_json
from xkd.progress import track
from xkd.settings import Params

AT_ONCE, MOST = 32, 3  # prepared clips that one task measures; values that a line shows


def run(
    source: str,
    params: Params | None = None,
    encoder: Path | None = None,
    out: Path | None = None,
    force: bool = False,
) -> int:
    """Prints what is in clips and what is found about them; returns the number of findings.

    Args:
        source: a media file, a folder of them, a CSV with a column `path`, a manifest, or a prepared data set's name.
        params: what the clips should fit; None: the encoder.
        encoder: folder of an encoder.
        out: JSON file to write the same into.
        force: `out` may be replaced; a file that is read never is.

    Raises:
        UserError: no such source, nothing readable in it, or no encoder.
    """
    place = _place(source)
    rows, prepared = _rows(place)
    if out:
        read = [place, *(place.parent / path for path in rows["path"]), *(files_in(encoder) if encoder else [])]
        check_output(out, read, force)
    if encoder:
        expected = _of_encoder(encoder, prepared)
    elif params:
        expected = _of_settings(params, source, prepared)
    else:
        raise ValueError("settings or an encoder")
    clips, faults = _measured(rows, place, prepared, expected)
    if not clips:
        raise UserError(f"{source}: none of {len(faults)} clips can be read ({_first(faults)})")
    found = checkup.examine(clips, expected)
    if faults:
        found.insert(0, _unreadable(faults, len(rows)))
    statistics = checkup.total(clips)
    facts = _facts(clips)
    lines = [f"{source}: {len(clips)} clips, compared with {expected.whose}", *_shown(facts)]
    print("\n".join([*lines, *_statistics(statistics, expected), *map(str, found), _verdict(found)]))
    if out:
        logmel = {"mean": statistics.mean, "std": statistics.std} if statistics.count else None
        told = [{"text": str(finding), **asdict(finding)} for finding in found]
        whole = {"source": source, "compared_with": expected.whose, "facts": facts, "logmel": logmel}
        write_json(out, {**whole, "findings": told, "verdict": _verdict(found)})
    return len(found)


def _place(source: str) -> Path:
    places = [Path(source), Path("data") / source / "manifest.csv"]
    for place in places:
        if place.exists():
            return place
    raise UserError(f"{source}: no such file or folder, and no prepared data set ({places[1]} is not there)")


def _rows(place: Path) -> tuple[pd.DataFrame, bool]:
    """Returns the clips at a place, with the columns of a listing or a manifest, and whether `prepare` made them."""
    if place.is_dir():
        return _in_folder(place), False
    if place.suffix != ".csv":
        return listing.completed(pd.DataFrame({"path": [place.name], "id": [place.name]})), False
    try:
        prepared = "status" in csv_files.read_csv(place).columns
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: not a readable CSV ({' '.join(str(error).split())})") from None
    if not prepared:
        return listing.read_listing(place), False
    rows = manifest.read_manifest(place).rows
    if rows.empty:
        raise UserError(f"{place}: no usable clip; look at its column reason")
    return rows, True


def _in_folder(place: Path) -> pd.DataFrame:
    """Lists the media files of a folder, with splits and classes where all lie in folders named after these."""
    tree = Tree(place)
    files = [(path, tree.relative(path)) for path in tree.media()]
    if not files:
        raise UserError(f"{place}: no media files there")
    firsts = [name.parts[0].lower() for _, name in files]
    depth = 1 if set(firsts) <= FOLDERS_OF_SPLITS.keys() else 0
    classes = [name.parts[depth] if len(name.parts) > depth + 1 else "" for _, name in files]
    if not depth and len(set(classes)) == 1:  # such as `recordings/`: no class
        classes = [""] * len(files)
    table = {
        "path": [str(path.absolute()) for path, _ in files],
        "id": [str(name).encode(errors="backslashreplace").decode() for _, name in files],
        "split": [FOLDERS_OF_SPLITS[first] if depth else "" for first in firsts],
        "label": classes,
    }
    return listing.completed(pd.DataFrame(table))


def _of_settings(params: Params, source: str, prepared: bool) -> Expected:
    clips = catalogue.clips(params, source) if source in params.datasets else params.clips
    return Expected(
        "the settings",
        exact=prepared,
        fps=clips.fps,
        size=clips.size,
        sample_rate=clips.sample_rate,
        seconds=clips.seconds,
        logmel=params.logmel,
    )


def _of_encoder(encoder: Path, prepared: bool) -> Expected:
    fed = folder.read_config(encoder).input
    same: dict[str, Any] = {"exact": prepared, "needs": (fed.MODALITY,), "seconds": fed.seconds}
    if isinstance(fed, VideoInput):
        return Expected("the encoder", fps=fed.fps, size=fed.short_side, **same)
    mend = "use an encoder that was trained on such sound, or change the volume"
    return Expected("the encoder", sample_rate=fed.sample_rate, logmel=fed.logmel, mend_statistics=mend, **same)


def _measured(rows: pd.DataFrame, place: Path, prepared: bool, expected: Expected) -> tuple[list[Clip], dict[str, str]]:
    """Measures all clips; returns them and, by name, why others cannot be read."""
    rate, logmel = expected.sample_rate, expected.logmel
    spectrum = Spectrum(logmel, rate) if logmel and rate else None
    clips, faults = [], {}
    results = _of_prepared(place, len(rows), spectrum) if prepared else _of_files(rows["path"], place, spectrum)
    for row, found in zip(rows.to_dict("records"), results, strict=True):
        if isinstance(found, Measured):
            sources = frozenset({row["video_source"], row["audio_source"]} - {""})
            clips.append(Clip(row["id"], found, _part(row["split"], row["fold"]), row["label"], sources))
        else:
            faults[row["id"]] = found.reason if isinstance(found, Failure) else found
    return clips, faults


def _of_files(paths: Iterable[str], place: Path, spectrum: Spectrum | None) -> Iterator[Measured | str | Failure]:
    tasks = [(str(place.parent / path), spectrum) for path in paths]
    return track(run_guarded(measure_file, tasks, seconds_allowed), "clips", len(tasks))


def _of_prepared(place: Path, count: int, spectrum: Spectrum | None) -> Iterator[Measured | str | Failure]:
    tasks = [(str(place), first, min(AT_ONCE, count - first), spectrum) for first in range(0, count, AT_ONCE)]
    results = run_guarded(measure_prepared, tasks, lambda task: task[2] * FILE_SECONDS)
    for (*_, size, _), block in zip(tasks, track(results, "doctor", len(tasks)), strict=True):
        yield from [block] * size if isinstance(block, Failure) else block


def _part(split: str, fold: str) -> str:
    """Returns what a clip's source must not be shared across: its fold where there are folds, else its split."""
    if fold and ":" not in fold:
        return fold
    return "" if split == "unused" else split


def _unreadable(faults: dict[str, str], of: int) -> Finding:
    return Finding("unreadable", tuple(faults), of, f"cannot be read: {_first(faults)}", "mend or remove them")


def _first(faults: dict[str, str]) -> str:
    return named([f"{name}: {reason}" for name, reason in faults.items()])


def _facts(clips: Sequence[Clip]) -> dict[str, Any]:
    """Returns what is in the clips, as the JSON file has it."""
    videos, sounds = [c.video for c in clips if c.video], [c.audio for c in clips if c.audio]
    seconds = sorted(max(s.seconds for s in (c.video, c.audio) if s) for c in clips)
    spread = seconds[0], seconds[len(seconds) // 2], seconds[-1], sum(seconds)
    labels = Counter(label for c in clips if c.label for label in c.label.split(listing.LABEL_SEPARATOR))
    return {
        "clips": len(clips),
        "seconds": dict(zip(("least", "median", "most", "all"), spread, strict=True)),
        "video": len(videos),
        "fps": _counted(f"{video.fps:.4g}" for video in videos),
        "sizes": _counted(f"{video.size[0]} x {video.size[1]}" for video in videos),
        "audio": len(sounds),
        "silent": sum(clip.silent for clip in clips),
        "sample_rates": _counted(str(sound.sample_rate) for sound in sounds),
        "splits": _counted(clip.part for clip in clips if clip.part),
        "classes": dict(labels.most_common()),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _shown(facts: dict[str, Any]) -> list[str]:
    length, classes = facts["seconds"], facts["classes"]
    spread = f"{length['least']:.2f} to {length['most']:.2f}, median {length['median']:.2f}"
    lines = [f"  seconds   {spread}, {length['all'] / 3600:.2f} hours in all"]
    if facts["video"]:
        lines.append(f"  video     {facts['video']}: {_top(facts['fps'])} frames/s; {_top(facts['sizes'])} pixels")
    if facts["audio"]:
        lines.append(f"  audio     {facts['audio']}: {_top(facts['sample_rates'])} Hz; silent {facts['silent']}")
    if len(facts["splits"]) > 1:
        lines.append(f"  splits    {_top(facts['splits'])}")
    if classes:
        counts = classes.values()
        lines.append(f"  classes   {len(classes)}, with {min(counts)} to {max(counts)} clips each")
    return lines


def _top(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{value} ({count})" for value, count in list(counts.items())[:MOST])
    return shown + (f" and {len(counts) - MOST} others" if len(counts) > MOST else "")


def _statistics(found: Moments, expected: Expected) -> list[str]:
    """Shows the log-mel statistics, as lines for params.yaml where the settings are what can be changed."""
    if not found.count or expected.logmel is None:
        return []
    if expected.needs:
        return [f"  log-mel   mean {found.mean:.4f}, std {found.std:.4f}; silent clips do not count"]
    lines = ["  log-mel   for params.yaml, of the clips that are not silent:", "logmel:"]
    return [*lines, f"  mean: {found.mean:.7g}", f"  std: {found.std:.7g}"]


def _verdict(found: Sequence[Finding]) -> str:
    if not found:
        return "Nothing found."
    return f"{len(found)} finding{'s' * (len(found) > 1)}: {', '.join(one.kind for one in found)}"
