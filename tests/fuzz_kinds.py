"""Kinds of bad inputs: which file of the small project is damaged, how, and what is then run.

    PYTHONPATH=.:tests python tests/fuzz_kinds.py 1000 [--first 5000] [KIND ...]

tries 1000 inputs of each kind, from a number on, and prints a row of a table for each: inputs, those of commands that
ended with exit code 2, and commands with a fault, whose project is kept.
"""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import fuzz_files
import fuzz_values
import fuzz_world
import numpy as np
import pyarrow.parquet as pq
from fuzz_changes import bytes_changed, text_changed
from fuzz_damage import copy_encoder, damage_archive, damage_checkpoint, damage_weights, edit
from fuzz_world import EVALUATION, RUN
from fuzzing import ALLOWED_CODES, Kind, trial

from xkd.data.manifest import read_manifest
from xkd.files import sha256

MANIFEST = "data/clips/manifest.csv"
PRETRAIN = ("pretrain", "--manifest", MANIFEST, "--ablation", "xkd", "--seed", "0")
AT_ONCE = 20  # media files of a trial


def _media(place: Path, draws: random.Random) -> list[Path]:
    """Replaces the media by one good film and damaged files."""
    found = sorted((place / "media").iterdir())
    good = (place / "media" / "film.mp4").read_bytes()
    contents = [(path.suffix, path.read_bytes()) for path in draws.choices(found, k=AT_ONCE)]
    shutil.rmtree(place / "media")
    (place / "media").mkdir()
    (place / "media" / "good.mp4").write_bytes(good)
    paths = [place / "media" / f"bad{number}{suffix}" for number, (suffix, _) in enumerate(contents)]
    for path, (_, content) in zip(paths, contents, strict=True):
        path.write_bytes(bytes_changed(content, draws))
    return paths


def _prepare_media(place: Path, draws: random.Random) -> list[str]:
    _media(place, draws)
    names = "\n".join(path.name for path in sorted((place / "media").iterdir()))
    (place / "media" / "index.csv").write_text(f"path\n{names}\n")
    settings = place / "params.yaml"
    settings.write_text(settings.read_text().replace("source: raw/clips}", "source: raw/clips, require: any}"))
    return ["prepare", "--raw", "media/index.csv", "--out", "out/data"]


def _prepared(place: Path) -> list[str]:
    """Every file has a clip that can be read, or a reason."""
    table = read_manifest(place / "out" / "data" / "manifest.csv").table
    usable, reasons = table[table["status"] == "ok"], table.loc[table["status"] != "ok", "reason"]
    faults = [] if len(table) == AT_ONCE + 1 and "good.mp4" in set(table["id"] + ".mp4") else ["rows are missing"]
    faults += [] if (table.loc[table["id"] == "good", "status"] == "ok").all() else ["the good file is left out"]
    faults += [f"an empty reason: {reason!r}" for reason in reasons if not reason.split(": ")[-1]]
    faults += [f"no clip: {name}" for name in usable["path"] if not (place / "out" / "data" / name).is_file()]
    faults += ["an empty clip"] if (usable["seconds"] <= 0).any() else []
    return faults


def _embed_media(place: Path, draws: random.Random) -> list[str]:
    _media(place, draws)
    encoder = draws.choice(("video_student", "audio_teacher"))
    return ["embed", f"{RUN}/encoders/{encoder}", "media", "--output", "out/vectors.parquet"]


def _embedded(place: Path) -> list[str]:
    table = pq.read_table(place / "out" / "vectors.parquet").to_pandas()
    whole = all(np.isfinite(vector).all() for vector in table["vector"])
    faults = [] if whole else ["features that are not finite"]
    faults += [] if any(name.endswith("good.mp4") for name in table["file"]) else ["the good file is left out"]
    return faults + ([] if (table["end"] > table["start"]).all() else ["clips that end before they begin"])


def _show_media(place: Path, draws: random.Random) -> list[str]:
    path = draws.choice(_media(place, draws))
    return ["show", str(path.relative_to(place)), "--encoder", RUN, "--out", "out/shown.png"]


def _doctor_media(place: Path, draws: random.Random) -> list[str]:
    _media(place, draws)
    return ["doctor", "media", "--json", "out/doctor.json"]


def _archive(place: Path, draws: random.Random) -> list[str]:
    source = draws.choice(sorted(place.glob("archive*")))
    damage_archive(source, draws)
    settings = place / "params.yaml"
    settings.write_text(settings.read_text().replace("archive.zip", source.name))
    return ["download", "--dataset", "packed", "--out", "out/raw"]


def _official(place: Path, draws: random.Random) -> list[str]:
    """Damages an official archive, or the list in it."""
    path = place / "esc50" / "ESC-50-master.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    table = next(name for name in members if name.endswith(".csv"))
    members[table] = text_changed(members[table].decode(), draws).encode(errors="replace")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return ["download", "--dataset", "esc50", "--out", "out/raw"]


def _index(place: Path, draws: random.Random) -> list[str]:
    edit(place / "raw" / "index.csv", draws)
    return ["prepare", "--raw", "raw/index.csv", "--out", "out/data"]


def _list(place: Path, draws: random.Random) -> list[str]:
    edit(place / "raw" / "list.csv", draws)
    if draws.random() < 0.5:
        return ["embed", f"{RUN}/encoders/audio_student", "raw/list.csv", "--output", "out/vectors.parquet"]
    return ["download", "--dataset", "listed", "--out", "out/raw"]


def _settings(place: Path, draws: random.Random) -> list[str]:
    edit(place / "params.yaml", draws)
    return draws.choice(
        (
            ["plan"], ["plan", "--json"], ["inspect", "clips", "--out", "out"], ["doctor", "clips"],
            ["download", "--dataset", "clips", "--out", "out/raw"], ["table", "--out", "out"],
            [*PRETRAIN, "--out", "out/run"],
        )
    )  # fmt: skip


def _extended(place: Path, draws: random.Random) -> list[str]:
    (place / "base.yaml").write_text((place / "params.yaml").read_text())
    path = place / "params.yaml"
    path.write_text("extends: base.yaml\ntraining: &t {epochs: 2}\nclips: {fps: 8, size: 16}\nsweeps: {}\n")
    edit(draws.choice((path, path, place / "base.yaml")), draws)
    return ["plan"]


def _manifest(place: Path, draws: random.Random) -> list[str]:
    target = draws.choice((MANIFEST, MANIFEST, "data/clips/.manifest.arrow", "data/clips/summary.json"))
    edit(place / target, draws)
    if target == MANIFEST and draws.random() < 0.5:
        (place / "data" / "clips" / ".manifest.arrow").unlink()
    return draws.choice((_evaluate("linear"), _evaluate("retrieval"), ["inspect", "clips", "--out", "out"],
                         ["plan"], ["doctor", "clips"], ["pack", "shards"],
                         [*PRETRAIN, "--out", "out/run"]))  # fmt: skip


def _evaluate(task: str) -> list[str]:
    return ["evaluate", "--manifest", MANIFEST, "--run", RUN, "--task", task, "--out", f"out/{task}.json"]


def _packed(place: Path, draws: random.Random) -> list[str]:
    edit(draws.choice(sorted((place / "data" / "clips" / "packed").iterdir())), draws)
    shutil.rmtree(place / "features", ignore_errors=True)
    return _evaluate("linear")


def _clips(place: Path, draws: random.Random) -> list[str]:
    """Damages prepared clips, which are read where there is no pack."""
    shutil.rmtree(place / "data" / "clips" / "packed")
    shutil.rmtree(place / "features", ignore_errors=True)
    edit(draws.choice(sorted((place / "data" / "clips" / "clips").rglob("*.mp4"))), draws)
    return _evaluate("linear")


def _features(place: Path, draws: random.Random) -> list[str]:
    edit(draws.choice([path for path in sorted((place / "features").rglob("*.*")) if path.is_file()]), draws)
    return _evaluate("linear")


def _run(place: Path, draws: random.Random) -> list[str]:
    """Damages a file of a run, most often so that the run's index knows nothing of it."""
    run = place / RUN
    edit(draws.choice([path for path in sorted(run.rglob("*.*")) if path.is_file()]), draws)
    if draws.random() < 0.8:
        with suppress(ValueError, KeyError, TypeError, AttributeError):  # the index itself may be the damaged file
            fuzz_world.reseal(run)
    film = "media/film.mp4"
    return draws.choice((_evaluate("retrieval"), ["show", film, "--encoder", RUN, "--out", "out/shown.png"],
                         ["table", "--out", "out"], ["table", "--out", "out"]))  # fmt: skip


def _encoder(place: Path, draws: random.Random) -> list[str]:
    """Damages the folder of an encoder that was copied out of its run."""
    folder = copy_encoder(place, draws)
    edit(draws.choice([folder / "config.json", *sorted(folder.glob("*.*"))]), draws)
    film = "media/film.mp4"
    return draws.choice((["embed", "encoder", film, "--output", "out/vectors.parquet"],
                         ["show", film, "--encoder", "encoder", "--out", "out/shown.png"],
                         ["doctor", film, "--encoder", "encoder"]))  # fmt: skip


def _evaluation(place: Path, draws: random.Random) -> list[str]:
    """Damages an evaluation, or a file of a run that the table reads."""
    target = draws.choice([path for path in sorted((place / EVALUATION).parent.iterdir()) if path.is_file()])
    edit(target, draws)
    path = place / EVALUATION
    if target != path and draws.random() < 0.8:
        results = json.loads(path.read_text())
        results["files"] = {suffix: sha256(path.with_suffix(suffix)) for suffix in results["files"]}
        path.write_text(json.dumps(results))
    settings = place / "params.yaml"
    settings.write_text(settings.read_text().replace("  retrieval: {protocol: retrieval}\n", ""))
    return ["table", "--out", "out"]


def _checkpoint(place: Path, draws: random.Random) -> list[str]:
    damage_checkpoint(place, draws)
    return [*PRETRAIN, "--out", "out/run"]


def _weights(place: Path, draws: random.Random) -> list[str]:
    path = damage_weights(place, draws)
    sizes = ["--heads", "3", "--patch", "4x8", "--view", "16x48"]
    return ["import-weights", path.name, "--output", "out", *(sizes if draws.random() < 0.5 else [])]


_DATA, _ALL = ("params.yaml", "data"), ("params.yaml", "data", "runs", "evals", "media")
KINDS = {
    "media, prepare": Kind(("params.yaml", "media"), _prepare_media, (0,), AT_ONCE, _prepared),
    "media, embed": Kind(("media", "runs"), _embed_media, (0,), AT_ONCE, _embedded),
    "media, show": Kind(("media", "runs"), _show_media),
    "media, doctor": Kind(("params.yaml", "media"), _doctor_media, (0, 3), AT_ONCE),
    "archives": Kind(("params.yaml", "archive.zip", "archive.tar", "archive.tar.gz", "archive.rar"), _archive),
    "official lists": Kind(("params.yaml", "esc50"), _official),
    "index.csv": Kind(("params.yaml", "raw"), _index),
    "own lists": Kind(("params.yaml", "raw", "runs"), _list),
    "settings": Kind((*_DATA, "raw", "runs", "evals"), _settings, ALLOWED_CODES),
    "settings that extend others": Kind(("params.yaml",), _extended),
    "manifests": Kind((*_DATA, "raw", "runs"), _manifest, ALLOWED_CODES),
    "packed clips": Kind((*_DATA, "runs"), _packed),
    "prepared clips": Kind((*_DATA, "runs"), _clips),
    "features": Kind((*_DATA, "runs", "features"), _features),
    "runs": Kind(_ALL, _run),
    "encoder folders": Kind(("media", "params.yaml", "runs"), _encoder, ALLOWED_CODES),
    "evaluations": Kind(_ALL, _evaluation),
    "checkpoints": Kind((*_DATA, "checkpoints"), _checkpoint),
    "released weights": Kind((), _weights),
    **fuzz_files.KINDS,
    **fuzz_values.KINDS,
}


def _main() -> None:
    numbers, names, folder, world = fuzz_world.asked(list(KINDS))
    for name in names:
        kind, codes, faulty = KINDS[name], [], 0
        for number in numbers[:: kind.inputs]:
            outcome = trial(kind, world, folder / f"{name.replace(', ', '-')}-{number}", number)
            codes.append(outcome.code)
            if outcome.faults:
                faulty += 1
                print(f"    {number}: {outcome.faults} {outcome.shown[-300:]!r}", flush=True)
        print(f"| {name} | {kind.inputs * len(codes)} | {kind.inputs * codes.count(2)} | {faulty} |", flush=True)


if __name__ == "__main__":
    _main()
