"""How much of the CLS attention of video encoders lies on the digit, before and after training, and of refinement.

    python -m benchmarks.attention runs/talking_digits/xkd/seed0

Of held-out clips of the embedded benchmark. The digit's patches are those of which it covers `--least` or more. Each
line gives the part of the patches that they are (their share of area), the part of the attention to patches that they
get (last block, mean over heads), and the ratio: 1 is no preference. Other lines do the same for the weights by which
refinement multiplies the teacher's tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import center_crop

from xkd import params
from xkd.data import synthetic
from xkd.data.clips import open_clips
from xkd.data.views import EvalViews
from xkd.models.encoder import Encoder
from xkd.objectives.refinement import patch_weights
from xkd.recipe import Recipe
from xkd.runs import CONFIG
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, load_recipe

AT_ONCE = 32
Covers = Callable[[str, int, int], np.ndarray]
Encoders = dict[tuple[str, str], Encoder]  # by owner and modality
Shares = dict[str, Tensor]  # by what is measured: attention or weight of each patch of each clip, (B, N)


def covers(split: str, index: int, seed: int) -> np.ndarray:
    """Returns how much of each pixel the digit of a clip covers, (T, canvas, canvas) in [0, 1]."""
    return synthetic.render(split, index, seed).cover


def covered_patches(cover: np.ndarray, recipe: Recipe) -> Tensor:
    """Returns how much of each video patch of the evaluation view the digit covers, (N,)."""
    view, size = recipe.views.video_global, recipe.clips.size
    frames = torch.from_numpy(cover[: view.frames]).float()[None]
    shown = center_crop(F.interpolate(frames, (size, size), mode="bilinear", antialias=True), [view.size, view.size])
    return F.avg_pool3d(shown[None], recipe.model.video_patch).flatten()


def batches(manifest: Path, split: str, clips: int, recipe: Recipe) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """Yields ids and evaluation views of evenly picked clips."""
    store, seen = open_clips(manifest, split), EvalViews(recipe)
    picked = np.unique(np.linspace(0, len(store) - 1, clips).round().astype(int)).tolist()
    for first in range(0, len(picked), AT_ONCE):
        clips = seen.open(store, picked[first : first + AT_ONCE])
        yield [clip.id for clip in clips], {modality: views[0] for modality, views in seen.batch(clips).items()}


@torch.no_grad()
def shares(encoders: Encoders, views: dict[str, Tensor], refinement: str, moment: str) -> Shares:
    """Returns the attention of each encoder of video, and the teacher's refinement weights, as parts that sum to 1."""
    attention = {
        (owner, modality): encoder.encode(views[modality], with_cls_attention=True).cls_attention
        for (owner, modality), encoder in encoders.items()
    }
    found = {f"{moment}, attention, {owner}": a.mean(1) for (owner, m), a in attention.items() if m == "video"}
    if ("teacher", "video") in attention:
        pair = attention["teacher", "video"], attention["teacher", "audio"]
        found[f"{moment}, refinement ({refinement})"] = patch_weights(*pair, refinement)
    return {name: values_BN / values_BN.sum(1, keepdim=True) for name, values_BN in found.items()}


def networks_at(run: Path, recipe: Recipe) -> dict[str, Encoders]:
    """Returns the encoders before and after training; teachers are the students' copies before."""
    drawn = build_networks(recipe, json.loads((run / CONFIG).read_text())["seed"]).eval()
    before = {("student", modality): encoder for modality, encoder in drawn.students.items()}
    before |= {("teacher", modality): encoder for modality, encoder in drawn.teachers.items()}
    return {"before training": before, "after training": load_encoders(run)}


def measure(
    run: Path, manifest: Path, split: str, clips: int, seed: int, least: float, covers: Covers
) -> dict[str, tuple[float, float]]:
    """Returns by what is measured: the digit's part of the patches and its part of the attention, means over clips."""
    recipe = load_recipe(run)
    kind = recipe.objective.refinement if recipe.objective.refinement != "none" else "mean"
    moments, found = networks_at(run, recipe), {}
    for ids, views in batches(manifest, split, clips, recipe):
        # Ids of clips say how they were drawn: test-00012 is the thirteenth of its split.
        masks = [covers(split, int(name.rpartition("-")[2]), seed) for name in ids]
        digit_BN = torch.stack([covered_patches(mask, recipe) >= least for mask in masks]).float()
        for moment, encoders in moments.items():
            for name, share_BN in shares(encoders, views, kind, moment).items():
                pairs = torch.stack((digit_BN.mean(1), (share_BN * digit_BN).sum(1)))
                found.setdefault(name, []).append(pairs)
    return {name: tuple(torch.cat(parts, 1).mean(1).tolist()) for name, parts in found.items()}


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--params", "settings", default="params.yaml", show_default=True, type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--clips", default=256, show_default=True)
@click.option("--least", default=0.1, show_default=True, help="part of a patch that the digit covers at least")
def main(run: Path, settings: Path, split: str, clips: int, least: float) -> None:
    """Prints a line for each encoder of video and moment."""
    dataset = params.load(settings).dataset
    seed = params.load(settings).datasets[dataset].seed
    manifest = Path("data") / dataset / "manifest.csv"
    for name, (area, share) in measure(run, manifest, split, clips, seed, least, covers).items():
        click.echo(f"{name:40} area {area:6.3f}  share {share:6.3f}  ratio {share / area:5.2f}")


if __name__ == "__main__":
    main()
