r"""Steps of the paper's ViT-B with a tiny batch: two processes equal one, and both equal the plain implementation.

    python -m benchmarks.equal                      # 112 pixels, 32 frames, 12 blocks of 768
    python -m benchmarks.equal --steps 3 --depth 2 --precision float32

All start from the same weights and see the same random views. The losses of every step and all weights at the end are
compared; a relative difference of a loss above `--tolerance`, or a difference of a weight above it, ends the script
with an error. Float64 shows that the mathematics is the same. In float32 AdamW turns rounding into updates where a
gradient is zero, as that of a key's bias is, so that weights are compared with the sum of the learning rates instead.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import click
import torch
from torch import Tensor, multiprocessing

from benchmarks.plain import PlainStep
from benchmarks.step import OurStep, random_batch
from xkd import params
from xkd.recipe import Recipe
from xkd.training import distributed
from xkd.training.build import build_networks
from xkd.training.distributed import ALONE, TrainingGroup

Course = tuple[list[float], dict[str, Tensor]]  # losses of all steps, weights after them


def vit_b(depth: int, batch: int) -> Recipe:
    """The paper's settings in float32 or more, with another depth and batch."""
    recipe = params.recipe(params.load("workflow/presets/paper.yaml"), "xkd")
    training = recipe.training.model_copy(update={"precision": "float32", "batch_size": batch})
    model = recipe.model.model_copy(
        update={"depth": depth, "decoder": recipe.model.decoder.model_copy(update={"depth": min(4, depth)})}
    )
    return recipe.model_copy(update={"training": training, "model": model})


def plain(recipe: Recipe, steps: int) -> Course:
    """Takes the steps by the plain implementation."""
    networks = build_networks(recipe, seed=0).to(torch.get_default_dtype())
    step = PlainStep(networks, recipe)
    return [float(step(*random_batch(recipe, seed=n))) for n in range(steps)], networks.state_dict()


def ours(recipe: Recipe, steps: int, group: TrainingGroup = ALONE) -> Course:
    """Takes the steps of `xkd pretrain`, with this process's share of each batch."""
    networks = build_networks(recipe, seed=0).to(torch.get_default_dtype())
    step, losses = OurStep(networks, recipe, group), []
    for number in range(steps):
        views, ranks = random_batch(recipe, seed=number)
        shared = {m: [group.share(view) for view in of] for m, of in views.items()}
        losses.append(float(step(shared, {m: group.share(order) for m, order in ranks.items()})))
    return losses, networks.state_dict()


def together(recipe: Recipe, steps: int, start: str = "spawn") -> Course:
    """Takes the steps in two processes, each with half of every batch; returns what the first one has."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        free.close()
        out = Path(folder) / "course.pt"
        arguments = (common, recipe, steps, torch.get_default_dtype(), out)
        multiprocessing.start_processes(_one_of, arguments, nprocs=2, start_method=start)
        found: Course = torch.load(out)
        return found


def _one_of(rank: int, common: dict[str, str], recipe: Recipe, steps: int, dtype: torch.dtype, out: Path) -> None:
    os.environ.update(common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    with distributed.joined() as group:
        course = ours(recipe, steps, group)
        if group.first:
            torch.save(course, out)


def difference(one: Course, other: Course) -> tuple[float, float]:
    """Returns the largest relative difference of a loss, and the largest difference of a weight."""
    losses = max(abs(a - b) / abs(b) for a, b in zip(one[0], other[0], strict=True))
    return losses, max(float((one[1][name] - value).abs().max()) for name, value in other[1].items())


@click.command()
@click.option("--steps", default=20, show_default=True)
@click.option("--batch", default=2, show_default=True)
@click.option("--depth", default=12, show_default=True)
@click.option("--precision", type=click.Choice(["float64", "float32"]), default="float64", show_default=True)
@click.option("--threads", default=1, show_default=True, help="Of torch, in the course of one process.")
@click.option("--tolerance", default=1e-6, show_default=True)
def main(steps: int, batch: int, depth: int, precision: str, threads: int, tolerance: float) -> None:
    """Compares the courses; exits with an error where they differ."""
    torch.set_num_threads(threads)
    torch.set_default_dtype(getattr(torch, precision))
    recipe = vit_b(depth, batch)
    alone = ours(recipe, steps)
    click.echo(
        f"{steps} steps, batch {batch}, depth {depth}, {precision}: losses {alone[0][0]:.6f} to {alone[0][-1]:.6f}"
    )
    of_weights = tolerance if precision == "float64" else steps * recipe.training.learning_rate
    for name, course in (("two processes", together), ("plain implementation", plain)):
        losses, weights = difference(course(recipe, steps), alone)
        click.echo(f"{name}: losses differ by {losses:.1e} (relative), weights by {weights:.1e}")
        if losses > tolerance or weights > of_weights:
            raise click.ClickException(f"{name}: more than {tolerance:g} and {of_weights:g}")


if __name__ == "__main__":
    main()
