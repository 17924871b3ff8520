"""What it costs to check files as they are read: the ratio of reading with the check to reading without it.

    python -m benchmarks.checks

Each kind is read with and without its check in turn; the ratio is the median over the pairs. "Without" is the same
code, with the function that compares replaced by one that compares nothing. Packed clips, shards and single files are
read as training reads them (a view of video and audio, up to the batch) and, in a line of their own, as bare bytes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, chdir
from pathlib import Path
from unittest import mock

import click
import numpy as np
import pandas as pd
import torch

from xkd import params, sums
from xkd.data.loader import train_loader
from xkd.data.manifest import MANIFEST_COLUMNS, read_manifest, write_manifest
from xkd.data.packed import Pack, PackWriter
from xkd.downstream import store
from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig, VideoInput
from xkd.files import write_json
from xkd.runs import records
from xkd.settings import ShardSettings
from xkd.stages import download, pack, prepare

PRESET = Path("workflow/presets/miniature.yaml")
Case = tuple[Callable[[], object], list[tuple[str, object]]]


@click.command()
@click.option("--pairs", default=9, show_default=True)
@click.option("--only", default="", help="Kinds whose names contain this.")
def main(pairs: int, only: str) -> None:
    """Prints a line for each kind of file."""
    with tempfile.TemporaryDirectory() as name:
        for made in (_weights, _features, _packed, _loaders, _manifest, _evaluation):
            if only in made.__name__:
                for title, (read, unchecked) in made(Path(name)).items():
                    print(f"{title:44} {_ratio(read, unchecked, pairs):.3f}", flush=True)


def _ratio(read: Callable[[], object], unchecked: list[tuple[str, object]], pairs: int) -> float:
    """Returns the median over pairs of processor seconds with the check to those without."""
    read()
    ratios = []
    for _ in range(pairs):
        checked = _seconds(read)
        with ExitStack() as stack:
            for target, value in unchecked:
                stack.enter_context(mock.patch(target, value))
            ratios.append(checked / _seconds(read))
    return statistics.median(ratios)


def _seconds(read: Callable[[], object]) -> float:
    begin = time.process_time()
    read()
    return time.process_time() - begin


def _weights(root: Path) -> dict[str, Case]:
    """An encoder of the width and depth of ViT-B, from its folder to a network in evaluation mode."""
    fed = VideoInput(frames=8, fps=8, short_side=112, size=112)
    about = {"modality": "video", "owner": "student", "origin": "-", "licence": "-", "input": fed}
    config = EncoderConfig(**about, patch=(4, 16, 16), grid=(2, 7, 7), width=768, depth=12, heads=12)
    folder.save(folder.build(config), config, root / "encoder")
    return {
        "weights of ViT-B (SHA-256), loaded": (lambda: folder.load(root / "encoder"), [_same_sha(root / "encoder")])
    }


def _same_sha(place: Path) -> tuple[str, object]:
    known = folder.read_config(place).sha256[folder.WEIGHTS]
    return "xkd.encoders.folder.sha256", lambda path: known


def _features(root: Path) -> dict[str, Case]:
    """20,000 clips of 768 numbers, from the store to an array in memory, and to the nearest neighbours."""
    table = pd.DataFrame({"id": [f"{i:06d}" for i in range(20_000)], "label": "a"})
    table = table.assign(video_source="", audio_source="")
    key, ids = ("student", "video"), table["id"].tolist()

    class Batch:
        def __init__(self, first: int) -> None:
            self.ids, self.views = ids[first : first + 500], {"video": [torch.rand(500, 768)]}

    def outputs() -> store.ClipOutputs:
        batches = lambda first, keys: map(Batch, range(first, len(ids), 500))  # noqa: E731
        return store.stored(root / "features", {key: lambda x: x}, {key: {"weights": "w"}}, table, batches)

    def neighbours() -> None:
        found = torch.from_numpy(outputs().take(ids).outputs[key][:, 0])
        for first in range(0, 4000, 500):
            (found[first : first + 500] @ found.T).topk(20)

    def unchecked(values: Path, size: int) -> tuple[int, int]:
        return (values.stat().st_size // size,) * 2

    patches: list[tuple[str, object]] = [("xkd.downstream.store.whole_clips", unchecked)]
    return {
        "features, gathered in memory": (lambda: outputs().take(ids).outputs[key], patches),
        "features, 4,000 clips classified by kNN": (neighbours, patches),
    }


NO_SUMS: list[tuple[str, object]] = [("xkd.sums.fit", lambda *_: True)]


def _packed(root: Path) -> dict[str, Case]:
    """Bare reads of cuts of 32 frames of 112 x 112, and of their 4 s of audio."""
    writer, draws = PackWriter(root / "packed"), np.random.default_rng(0)
    for number in range(20):
        video = draws.integers(0, 256, (80, 3, 112, 112), np.uint8)
        writer.add(str(number), "", video, draws.integers(-99, 99, 160_000, np.int16))
    writer.close()
    held = Pack(writer.folder)

    def read() -> None:
        for number in range(20):
            held.video(number, 7, 32)
            held.audio(number, 9_000, 64_000)

    def audio() -> None:
        for number in range(20):
            held.audio(number, 9_000, 64_000)

    return {"packed clips, bare bytes": (read, NO_SUMS), "  of audio alone": (audio, NO_SUMS)}


def _loaders(root: Path) -> dict[str, Case]:
    """An epoch of the miniature's batches from packed clips, decoded shards and single files."""
    settings = params.load(PRESET)
    recipe = params.recipe(settings, "xkd")
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"workers": 0})})
    packing = settings.model_copy(update={"clips": settings.clips.model_copy(update={"pack": True})})
    entry = settings.datasets["miniature"].model_copy(update={"shards": ShardSettings(form="decoded")})
    sharding = settings.model_copy(update={"datasets": {**settings.datasets, "miniature": entry}})
    home = root / "data" / "miniature"
    download.run(settings, "miniature", home / "raw")
    for name, chosen in (("packed", packing), ("single", settings), ("sharded", sharding)):
        prepare.run(chosen, home / "raw" / "index.csv", root / name / "data" / "miniature")
    with chdir(root / "sharded"):
        pack.run(sharding, "miniature")

    def epoch(name: str) -> Callable[[], None]:
        return lambda: sum(1 for _ in train_loader(recipe, manifest(name), seed=0))

    def manifest(name: str) -> Path:
        return root / name / "data" / "miniature" / "manifest.csv"

    table = read_manifest(manifest("single")).rows
    known = {manifest("single").parent / p: d for p, d in zip(table["path"], table["digest"], strict=True)}
    return {
        "packed clips, batches": (epoch("packed"), NO_SUMS),
        "decoded shards, batches": (epoch("sharded"), NO_SUMS),
        "single files (SHA-256), first epoch": (epoch("single"), [("xkd.data.clips.sha256", known.get)]),
    }


def _manifest(root: Path) -> dict[str, Case]:
    """A manifest of 100,000 clips, from the columns beside it."""
    rows = 100_000
    numbers = [f"{i:016x}" for i in range(rows)]
    given = {"id": numbers, "path": numbers, "split": "train", "label": "a", "digest": numbers, "status": "ok"}
    table = pd.DataFrame({name: given.get(name, "") for name in MANIFEST_COLUMNS}, index=range(rows))
    path = root / "manifest.csv"
    write_manifest(path, table)
    read_manifest(path)
    content = (root / ".manifest.arrow").read_bytes()[-sums.WORD :]
    known = int.from_bytes(content, "little")
    return {"manifest, columns beside it": (lambda: read_manifest(path), [("xkd.sums.total", lambda _: known)])}


def _evaluation(root: Path) -> dict[str, Case]:
    """The results of an evaluation."""
    facts = {"dataset": "d", "task": "t", "protocol": "p", "manifest": "m", "clips": {"train": 1, "test": 1}}
    metrics = {f"student.video.{i}.top1": i / 7 for i in range(150)}
    write_json(root / "e.json", {**facts, "items": {}, "metrics": metrics, "encoders": "", "files": {}}, sealed=True)

    def read() -> None:
        for _ in range(200):
            records.read_record(root / "e.json", records.EvaluationRecord, "")

    return {"evaluation (SHA-256)": (read, [("xkd.runs.records.check_seal", lambda content: content)])}


if __name__ == "__main__":
    main()
