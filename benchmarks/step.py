r"""The training step against a plain implementation of the same formulas, as ratios measured in one run.

    python -m benchmarks.step --params workflow/presets/paper.yaml --batch 4 --pairs 5 \
        --precision float32 --precision bfloat16
    python -m benchmarks.step --params params.yaml --pairs 200
    python -m benchmarks.step --params workflow/presets/paper.yaml --gpu --batch 8 --batch 32 --peak-tflops 989

The baseline is `benchmarks.plain`. Both start from the same weights and see the same random views; their losses before
the first update are compared. Steps then alternate, ours and the plain one; the ratio of each pair is taken and the
median of those is reported with the quartiles. Times are processor time: what else runs on the machine does not count,
and nor does waiting, so keep to one thread where it is busy. "products" is what the step's matrix products alone would
take at the rate of a large one, measured between the steps: no implementation is faster than that. With --gpu both are
measured on a GPU, in wall-clock time, with model FLOP utilisation (arithmetic as `xkd plan` counts it), peak memory and
the memory that the plan foretells.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.plain import PlainStep
from xkd import params
from xkd.models.networks import Networks
from xkd.plan.arithmetic import step_flops
from xkd.plan.footprint import memory
from xkd.plan.shapes import patch_counts, view_shapes
from xkd.recipe import Recipe
from xkd.training.build import build_networks
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.graphs import GraphedStep
from xkd.training.objective import run_objective
from xkd.training.optimiser import make_optimiser
from xkd.training.sharing import Inputs, SharedObjective
from xkd.training.step import AUTOCAST, Step

ROUNDING = {"float32": 1e-4, "bfloat16": 1e-2}
PRODUCT = 1024  # rows and columns of a product that reaches the processor's rate


class OurStep:
    """The step of `xkd pretrain`, at the schedules' first values; the supervised yardstick's has ten labels."""

    def __init__(self, networks: Networks, recipe: Recipe, group: TrainingGroup = ALONE):
        training, chosen = recipe.training, recipe.objective
        with next(networks.parameters()).device:
            objective = run_objective(recipe, networks, classes=10).train()
        optimiser = make_optimiser(objective, training.learning_rate, training.betas, training.weight_decay)
        self.learner = SharedObjective(objective, training.clip_gradient, group)
        update = Step(self.learner, optimiser, training.precision, group=group, compile=training.compile)
        graphs = training.cuda_graphs and self.learner.device.type == "cuda"
        self.update: Callable[[Inputs], dict[str, Tensor]] = GraphedStep(update) if graphs else update
        self.momentum = {m: training.ema[0] for m in networks.teachers}
        self.temperatures = {"video": chosen.teacher_temperature_video[0], "audio": chosen.teacher_temperature_audio[0]}

    def __call__(self, views: dict[str, list[Tensor]], ranks: dict[str, Tensor]) -> Tensor:
        """The loss of a batch before the update that it makes."""
        ranks = ranks if self.learner.objective.masks else {}
        first = next(iter(views.values()))[0]
        labels_B = torch.arange(len(first), device=first.device) % 10
        return self.update(Inputs(views, ranks, self.temperatures, labels_B, self.momentum))["loss"]


def make_step(recipe: Recipe) -> OurStep:
    """The step of any ablation that trains."""
    return OurStep(build_networks(recipe, seed=0), recipe)


@click.command()
@click.option("--params", "settings", default="params.yaml", show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--ablation", default="xkd", show_default=True, help="For --gpu any; the baseline knows xkd and its MAS, MATS."
)
@click.option("--batch", "batches", type=int, multiple=True, help="Clips per step; by default training.batch_size.")
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(list(ROUNDING)), help="By default that set."
)
@click.option("--pairs", default=5, show_default=True, help="Measured pairs of steps, after one of warming up.")
@click.option("--threads", default=1, show_default=True, help="Of torch, on the CPU.")
@click.option("--gpu", is_flag=True, help="Measure on a CUDA device instead.")
@click.option("--compile", "compiled", is_flag=True, help="Compile our encoders and decoders (training.compile).")
@click.option(
    "--graphs/--no-graphs", default=True, help="On a GPU, take our steps as CUDA graphs (training.cuda_graphs)."
)
@click.option("--alone", is_flag=True, help="On a GPU, our step without the plain one, which needs more memory.")
@click.option("--peak-tflops", default=312.0, show_default=True, help="Of the GPU, dense, in the precision used.")
def main(settings, ablation, batches, precisions, pairs, threads, gpu, compiled, graphs, alone, peak_tflops) -> None:
    """Prints how long a training step takes."""
    torch.set_num_threads(threads)
    recipe = params.recipe(params.load(settings), ablation)
    table = Table(*(GPU_COLUMNS if gpu else COLUMNS), title=f"{settings}, {recipe.ablation}, {_machine(gpu)}")
    for precision in precisions or (recipe.training.precision,):
        for batch in batches or (recipe.training.batch_size,):
            changed = {"precision": precision, "batch_size": batch, "compile": compiled, "cuda_graphs": graphs}
            case = recipe.model_copy(update={"training": recipe.training.model_copy(update=changed)})
            table.add_row(*(_on_gpu(case, pairs, peak_tflops, alone) if gpu else _beside_plain(case, pairs)))
    Console(width=140).print(table)


COLUMNS = (
    *("precision", "batch", "loss, ours", "loss, plain"),
    *("s, ours", "s, plain", "s, products", "ratio", "quartiles", "pairs"),
)
GPU_COLUMNS = ("precision", "batch", "ms, ours", "ms, plain", "ratio", "clips/s", "MFU", "GB", "GB, plan", "GB, plain")


def random_batch(
    recipe: Recipe, device: str = "cpu", seed: int = 0
) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Views of noise of a run's sizes, and orders of the global views' patches; the same for the same seed."""
    generator, size = torch.Generator().manual_seed(seed), recipe.training.batch_size
    shapes = view_shapes(recipe)
    views = {m: [torch.randn(size, *s, generator=generator).to(device) for s in shapes[m]] for m in shapes}
    ranks = {m: torch.rand(size, patch_counts(recipe, m)[0], generator=generator).to(device) for m in shapes}
    return views, ranks


def _beside_plain(recipe: Recipe, pairs: int) -> list[str]:
    networks, batch = build_networks(recipe, seed=0), random_batch(recipe)
    steps = PlainStep(deepcopy(networks), recipe), OurStep(networks, recipe)
    losses = [float(step(*batch)) for step in steps]
    precision = recipe.training.precision
    if abs(losses[0] - losses[1]) > ROUNDING[precision] * abs(losses[0]):
        raise click.ClickException(f"{precision}: the losses differ: plain {losses[0]}, ours {losses[1]}")
    product = _product(precision)
    seconds = np.array([[*(_seconds(step, batch) for step in steps), _seconds(product, ())] for _ in range(pairs)])
    ratios = seconds[:, 0] / seconds[:, 1]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    seconds[:, 2] *= step_flops(recipe).total / (2 * PRODUCT**3)
    plain, ours, products = (f"{s:.3g}" for s in np.median(seconds, axis=0))
    shown = [f"{losses[1]:.5f}", f"{losses[0]:.5f}", ours, plain, products]
    shown += [f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
    return [precision, str(recipe.training.batch_size), *shown, str(pairs)]


def _on_gpu(recipe: Recipe, pairs: int, peak_tflops: float, alone: bool) -> list[str]:
    if not torch.cuda.is_available():
        raise click.ClickException("--gpu: torch sees no CUDA device here")
    networks, batch = build_networks(recipe, seed=0).cuda(), random_batch(recipe, "cuda")
    ours, own_peak = _warmed(lambda: OurStep(deepcopy(networks), recipe), batch)
    steps, peaks = [ours], [f"{own_peak:.1f}", f"{memory(recipe).total / 1e9:.1f}"]
    if not alone:
        plain, plain_peak = _warmed(lambda: PlainStep(networks, recipe), batch)
        steps, peaks = [*steps, plain], [*peaks, f"{plain_peak:.1f}"]
    seconds = np.array([[_seconds(step, batch) for step in steps] for _ in range(pairs)])
    own = float(np.median(seconds[:, 0]))
    against = ["", ""]
    if not alone:
        against = [f"{1e3 * np.median(seconds[:, 1]):.1f}", f"{np.median(seconds[:, 1] / seconds[:, 0]):.2f}"]
    size, utilisation = recipe.training.batch_size, step_flops(recipe).total / own / (peak_tflops * 1e12)
    rates = [f"{size / own:.1f}", f"{utilisation:.1%}"]
    return [recipe.training.precision, str(size), f"{1e3 * own:.1f}", *against, *rates, *peaks]


def _warmed(make: Callable[[], Callable], batch: tuple) -> tuple[Callable, float]:
    """A step that has been taken five times, so that graphs are recorded, and its peak in GB, views among them."""
    gc.collect()  # networks of the case before
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated() - sum(view.nbytes for of in batch[0].values() for view in of)
    torch.cuda.reset_peak_memory_stats()
    step = make()
    for _ in range(5):
        step(*batch)
    return step, (torch.cuda.max_memory_allocated() - before) / 1e9


def _seconds(step: Callable, batch: tuple) -> float:
    """Processor time on the CPU, wall-clock time on a GPU."""
    if batch and batch[0]["video"][0].is_cuda:
        torch.cuda.synchronize()
        started = time.perf_counter()
        step(*batch)
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    step(*batch)
    return time.process_time() - started


def _product(precision: str) -> Callable[[], Tensor]:
    """A large matrix product."""
    one, other = torch.randn(2, PRODUCT, PRODUCT).to(AUTOCAST.get(precision, torch.float32))
    return lambda: one @ other


def _machine(gpu: bool) -> str:
    return torch.cuda.get_device_name() if gpu and torch.cuda.is_available() else f"{torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
