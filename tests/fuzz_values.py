"""Kinds of inputs with odd values: tensors of encoders, settings, names and labels of clips."""

from __future__ import annotations

import csv
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from fuzz_damage import copy_encoder
from fuzz_world import RUN
from fuzzing import Kind
from safetensors.torch import load_file, save_file

FILM = "media/film.mp4"
HOSTILE = (
    *("r$(touch HURT)", "r`touch HURT`", "r; touch HURT", "r s", "r'", 'r"', "r\\", "r*", "{r}", "--help", "../up"),
    *("/r", "r|s", "r&", "r\ns", "~", "r/../../s", "$HOME"),
)
FORMULAS = (
    *("=cmd|'/C calc'!A0", "=1+1", "+1+1", "-2+3", "@SUM(A1)", "=HYPERLINK(A1)", "$(touch HURT)", "a b", "a'b"),
    *('a"b', "a,b", "é", "🎥", "high", "low"),
)


# Tensors


def _tensors(place: Path, draws: random.Random) -> list:
    """Changes the kind or the values of tensors of an encoder that was copied out of its run."""
    folder = copy_encoder(place, draws)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sha256": {}}))
    held = load_file(folder / "model.safetensors")
    change = draws.choice((torch.int8, torch.int64, torch.bool, torch.float64, "nan", "nan", "inf", "huge", "empty"))
    for name in draws.sample(sorted(held), draws.choice((1, 1, len(held)))):
        held[name] = _changed(held[name], change)
    save_file(held, folder / "model.safetensors")
    if change in (torch.int8, torch.int64, torch.bool, "empty"):
        (place / "refuse").touch()
    return draws.choice((["embed", "encoder", FILM, "--output", "out/vectors.parquet"],
                         ["show", FILM, "--encoder", "encoder", "--out", "out/shown.png"]))  # fmt: skip


def _changed(tensor: torch.Tensor, change: torch.dtype | str) -> torch.Tensor:
    if isinstance(change, torch.dtype):
        return tensor.to(change)
    if change == "empty":
        return tensor[:0].clone()
    tensor = tensor.clone()
    tensor.view(-1)[0] = {"nan": float("nan"), "inf": float("inf"), "huge": 3e38}[change]
    return tensor


def _finite(place: Path) -> list[str]:
    faults = ["tensors of another kind were taken"] if (place / "refuse").exists() else []
    if (path := place / "out" / "vectors.parquet").exists():
        vectors = pq.read_table(path).column("vector").to_pylist()
        faults += [] if all(np.isfinite(vector).all() for vector in vectors) else ["features that are not finite"]
    return faults


# Settings


def _settings(place: Path, draws: random.Random) -> list:
    """Writes settings that mean nothing, or two things, or that name what is no plain folder."""
    path = place / "params.yaml"
    draws.choice((_twice, _number, _number, _name, _linked, _encoded))(path, draws)
    return draws.choice((["plan"], ["download", "--dataset", "clips", "--out", "out/raw"], ["table", "--out", "out"]))


def _twice(path: Path, draws: random.Random) -> None:
    """Repeats a block, or a key of a block, with another value."""
    text = path.read_text()
    again = draws.choice(
        ("training: {epochs: 2}\n", "seeds: [1]\n", "clips: {seconds: 1, fps: 4}\n", "results: other\n",
         "  xkd:\n    hypothesis: Another.\n    changes: {training: {epochs: 2}}\n")
    )  # fmt: skip
    if draws.random() < 0.5:
        path.write_text(text + again)
    else:
        found = draws.choice(list(re.finditer(r"(\w+): [\d.]+(?=[,}])", text)))
        path.write_text(f"{text[: found.end()]}, {found[1]}: 1{text[found.end() :]}")


def _number(path: Path, draws: random.Random) -> None:
    """Makes a number infinite, or a size absurd."""
    text = path.read_text()
    found = draws.choice(list(re.finditer(r"\b(\w+): (-?[\d.]+)(?=[,}\n])", text)))
    if draws.random() < 0.3:
        found = draws.choice(list(re.finditer(r"\b(width|depth|out|hidden|size|frames|n_mels): (\d+)", text)))
        odd = draws.choice(("1000000000", "1" + "0" * 20, "1" + "0" * 400))
    else:
        odd = draws.choice((".inf", "-.inf", ".nan", "1e400", "1.0e+400", "-1.0e+999"))
    path.write_text(text[: found.start(2)] + odd + text[found.end(2) :])


def _name(path: Path, draws: random.Random) -> None:
    """Gives the folder of results, a data set, a task or a row a name that a shell would not leave alone."""
    key = draws.choice(("results: out", "dataset: clips", "  xkd:", "  linear: {p", "  clips: &own"))
    name, rest = (part for part in key.split(":", 1))
    odd = json.dumps(draws.choice(HOSTILE))
    valued = name in ("results", "dataset")
    new = f"{name}: {odd}" if valued else f"  {odd}:{rest}"
    path.write_text(path.read_text().replace(key, new, 1))


def _linked(path: Path, draws: random.Random) -> None:
    """Lets settings extend themselves, each other, or what is no file."""
    other = path.with_name("base.yaml")
    other.write_text(f"extends: {draws.choice(('params.yaml', 'base.yaml'))}\n")
    os.mkfifo(path.with_name("pipe.yaml"))
    extended = ("params.yaml", "base.yaml", "[params.yaml]", "{a: b}", ".", "pipe.yaml", "/dev/zero", "7", "none.yaml")
    path.write_text(f"extends: {draws.choice(extended)}\n{path.read_text()}")


def _encoded(path: Path, draws: random.Random) -> None:
    """Writes the settings in another encoding, or with bytes that no text holds."""
    text = path.read_text().replace("All terms", "Für alle")
    place = draws.randrange(len(text))
    odd = draws.choice((b"\xff", b"\xc3", b"\0", b"\x80\x81"))
    cut = text[:place].encode() + odd + text[place:].encode()
    path.write_bytes(draws.choice((text.encode("latin-1"), text.encode("utf-16-le"), cut, cut)))


# Names and labels


def _raw_list(place: Path, rows: list[tuple[str, str, str, str, str]]) -> None:
    with (place / "raw" / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "path", "split", "label", "video_source"), *rows])


def _prepared(*last: list[str]) -> list:
    return [
        ["download", "--dataset", "listed", "--out", "out/raw"],
        ["prepare", "--raw", "out/raw/index.csv", "--out", "out/data"],
        *last,
    ]


def _evaluate(task: str) -> list[str]:
    manifest = ["--manifest", "out/data/manifest.csv", "--run", RUN]
    return ["evaluate", *manifest, "--task", task, "--out", f"out/{task}.json"]


def _clips(place: Path) -> list[Path]:
    return sorted((place / "raw" / "clips").rglob("*.mp4"))


def _names(place: Path, draws: random.Random) -> list:
    """Gives clips, labels and files names that a spreadsheet takes for formulas, or a shell for commands."""
    labels, rows = draws.sample(FORMULAS, 2), []
    for number, path in enumerate(_clips(place)):
        name = draws.choice(FORMULAS)
        renamed = path.with_name(f"{name}{number}.mp4".replace("/", "_"))
        path.rename(renamed)
        where = renamed.relative_to(place / "raw").as_posix()
        rows.append((f"{name}{number}", where, path.parts[-3], labels[number % 2], name))
    _raw_list(place, rows)
    return _prepared(*draws.choice(([], [_evaluate("linear")])))


def _no_formula(place: Path) -> list[str]:
    return [
        f"a formula in {path.name}: {cell}"
        for path in sorted((place / "out").rglob("*.csv"))
        for row in csv.reader(path.read_text().splitlines())
        for cell in row
        if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell)
    ]


def _labels(place: Path, draws: random.Random) -> list:
    """Draws few labels, other ones for test clips, and few sources of clips."""
    known = draws.choice((("a",), ("a", "b")))
    tested = draws.choice((("a",), ("a", "b"), ("b", "c"), ("c",)))
    rows, sources = [], draws.choice((1, 2, 12))
    for number, path in enumerate(_clips(place)):
        split = path.parts[-3]
        label = (known if split == "train" else tested)[number % 2 % len(known if split == "train" else tested)]
        rows.append((str(number), path.relative_to(place / "raw").as_posix(), split, label, f"v{number % sources}"))
    _raw_list(place, rows)
    protocol = draws.choice(("linear", "svm", "finetune"))
    settings = place / "params.yaml"
    settings.write_text(settings.read_text().replace("tasks:\n", f"tasks:\n  judged: {{protocol: {protocol}}}\n"))
    (place / "drawn.json").write_text(json.dumps({"known": known, "tested": tested, "protocol": protocol}))
    return _prepared(_evaluate("judged"))


def _noted(place: Path) -> list[str]:
    """One label cannot be learned; test labels that training lacks, and a single one, are noted."""
    drawn, results = (json.loads((place / name).read_text()) for name in ("drawn.json", "out/judged.json"))
    if len(drawn["known"]) == 1:
        return ["one label was learned"]
    odd = len(drawn["tested"]) == 1 or not set(drawn["tested"]) <= set(drawn["known"])
    return ["nothing is noted of odd test labels"] if odd and not results.get("notes") else []


def _own_key(place: Path, shown: str) -> list[str]:
    """A failure names no key of another protocol."""
    protocol = json.loads((place / "drawn.json").read_text())["protocol"]
    named = set(re.findall(r"evaluate\.(linear|svm|finetune)\b", shown)) - {protocol}
    return [f"an error of {protocol} names the key of {name}" for name in sorted(named)]


_LISTED = ("params.yaml", "raw", "runs")
KINDS = {
    "tensors of encoders": Kind(("media", "params.yaml", "runs"), _tensors, check=_finite),
    "settings without a meaning": Kind(("params.yaml", "raw"), _settings, (2,)),
    "odd names": Kind(_LISTED, _names, check=_no_formula),
    "few labels": Kind(_LISTED, _labels, check=_noted, complaint=_own_key),
}
