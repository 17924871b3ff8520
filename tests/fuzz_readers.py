"""Readers of files, called directly: each returns what is in a damaged file, or raises a UserError of one line.

    PYTHONPATH=.:tests python tests/fuzz_readers.py 1000 [--first 5000] [READER ...]

tries 1000 inputs for each reader, from a number on, and prints a row of a table for each.
"""

from __future__ import annotations

import contextlib
import io
import random
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import fuzz_damage
import fuzz_world
from fuzz_damage import edit
from fuzz_kinds import MANIFEST
from fuzz_world import EVALUATION, RUN
from fuzzing import copied

from xkd import params
from xkd.data import listing
from xkd.data.manifest import read_manifest
from xkd.data.sources import unpack
from xkd.encoders import folder, importing
from xkd.errors import UserError
from xkd.report import curves, dataset
from xkd.runs import evaluations, records
from xkd.stages.evaluate import load_encoders, load_heads, load_recipe
from xkd.training import checkpoint

SECONDS = 120
MOST_UNPACKED = (1 << 30) + (64 << 20)  # bytes; what a small archive may grow to, and its media
SUMMARY = "data/clips/summary.json"
ENCODER = "encoder"
Fault = str


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Attributes:
        parts: files and folders of the project that it needs.
        damage: damages the copy in a folder.
        read: reads it.
    """

    parts: tuple[str, ...]
    damage: Callable[[Path, random.Random], None]
    read: Callable[[Path], object]


def attempt(reader: Reader, world: Path, place: Path, number: int) -> tuple[bool, Fault | None]:
    """Damages a copy as the number says and reads it; returns whether it was refused, and what went wrong."""
    with copied(world, reader.parts, place):
        reader.damage(place, random.Random(number))
        signal.signal(signal.SIGALRM, _stop)
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                reader.read(place)
            return False, None
        except UserError as error:
            return bool(str(error)), None
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is a fault)
            last = traceback.extract_tb(error.__traceback__)
            ours = [f"{Path(f.filename).name}:{f.lineno}" for f in last if "/xkd/" in f.filename][-2:]
            return False, f"{type(error).__name__}: {str(error)[:150]} at {' '.join(ours)}"
        finally:
            signal.alarm(0)


class _Hang(BaseException): ...


def _stop(*_: object) -> None:
    raise _Hang


def _one_of(*patterns: str) -> Callable[[Path, random.Random], None]:
    """Returns a function that damages one of the files that the patterns name."""
    return lambda place, draws: edit(draws.choice([p for each in patterns for p in sorted(place.glob(each))]), draws)


def _copied_encoder(place: Path, draws: random.Random) -> None:
    fuzz_damage.copy_encoder(place, draws)
    edit(draws.choice([place / ENCODER / "config.json", *sorted((place / ENCODER).glob("*.*"))]), draws)


def _read_encoder(place: Path) -> None:
    _, config = folder.load(place / ENCODER)
    folder.load_head(place / ENCODER)
    folder.load_decoder(place / ENCODER, config)


def _forged(place: Path, draws: random.Random) -> None:
    """Damages a file of a run, and its index with it."""
    edit(draws.choice([path for path in sorted((place / RUN).rglob("*.*")) if path.is_file()]), draws)
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        fuzz_world.reseal(place / RUN)


def _read_run(place: Path) -> None:
    run = place / RUN
    records.read_run(run, "")
    load_recipe(run), load_encoders(run), load_heads(run)
    curves.read_columns(SimpleNamespace(folder=run))
    for name in ("history.csv", "steps.csv"):
        records.read_curve(run / name)
    for name in ("samples.npz", "embeddings.npz"):
        records.read_arrays(run / name)
    records.mlflow_id(run)


def _read_manifest(place: Path) -> None:
    manifest = read_manifest(place / MANIFEST)
    for split in ("train", "test"):
        part = manifest.split(split)
        part.rows, part.labels, part.values("seconds"), part.values("has_video")
    if (summary := (place / MANIFEST).with_name("summary.json")).exists():
        dataset.data_facts(summary.parent, manifest.hash)


def _read_checkpoint(place: Path) -> None:
    try:
        checkpoint.content(next((place / "checkpoints").rglob("last.pt")))
    except ValueError as error:
        raise UserError("damaged") from error


def _unpack(place: Path) -> None:
    (archive,) = (path for path in place.iterdir() if path.name.startswith("archive"))
    unpack.unpack(archive, place / "out" / "files", nested=True)


def _unpack_all(place: Path) -> None:
    """Unpacks archives in archives, which together may grow to what one may."""
    _unpack(place)
    grown = sum(path.stat().st_size for path in (place / "out").rglob("*") if path.is_file())
    assert grown < MOST_UNPACKED, f"{grown >> 20} MiB were unpacked"


def _archive(name: str) -> Reader:
    return Reader((name,), lambda place, draws: fuzz_damage.damage_archive(place / name, draws), _unpack)


def _read_weights(place: Path) -> None:
    importing.import_backbone(place / "XKD_student.pth.tar", heads=3, patch=(4, 8), view=(16, 48))


def _read_evaluation(place: Path) -> None:
    evaluations.read_results(place / EVALUATION, place / RUN, "")
    evaluations.read_confusions(place / EVALUATION)


EVALUATIONS = EVALUATION.rpartition("/")[0]
READERS = {
    "settings": Reader(("params.yaml",), _one_of("params.yaml"), lambda p: params.load(p / "params.yaml")),
    "index.csv": Reader(("raw/index.csv",), _one_of("raw/*.csv"), lambda p: listing.read_listing(p / "raw/index.csv")),
    "manifests": Reader((MANIFEST,), _one_of(MANIFEST), _read_manifest),
    "manifests with summaries": Reader((MANIFEST, SUMMARY), _one_of("data/clips/*.*"), _read_manifest),
    "encoder folders": Reader((RUN,), _copied_encoder, _read_encoder),
    "runs": Reader((RUN,), _one_of(f"{RUN}/*.*", f"{RUN}/encoders/*/*"), _read_run),
    "runs with forged hashes": Reader((RUN,), _forged, _read_run),
    "evaluations": Reader((RUN, EVALUATIONS), _one_of(f"{EVALUATIONS}/*"), _read_evaluation),
    "checkpoints": Reader(("checkpoints",), fuzz_damage.damage_checkpoint, _read_checkpoint),
    "released weights": Reader((), fuzz_damage.damage_weights, _read_weights),
    **{f"archives, {name}": _archive(f"archive.{name}") for name in ("zip", "tar", "tar.gz", "rar")},
    "archives in archives": Reader(
        ("archive.zip",), lambda p, draws: fuzz_damage.nest_archives(p / "archive.zip", draws), _unpack_all
    ),
}


def _main() -> None:
    numbers, names, folder, world = fuzz_world.asked(list(READERS))
    for name in names:
        refused, faults = 0, {}
        for number in numbers:
            no, fault = attempt(READERS[name], world, folder / "copy", number)
            refused += no
            if fault:
                faults.setdefault(fault, []).append(number)
        print(f"| {name} | {len(numbers)} | {refused} | {sum(map(len, faults.values()))} |")
        for fault, inputs in faults.items():
            print(f"    {inputs[:5]} {len(inputs)}: {fault}")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
