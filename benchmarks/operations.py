"""The operations that one training step dispatches, part by part: what a GPU is asked to do, and when it is waited for.

    python -m benchmarks.operations
    python -m benchmarks.operations --params params.yaml --ablation ae --precision float32 --top 10

The step is that of `xkd pretrain`, on tensors without values (`FakeTensorMode`): ViT-B takes seconds and needs no GPU.
Every dispatched operation costs the host some microseconds. Views cost nothing else; the rest start kernels, casts
among them. Waits read a value from the device, or need one to know a shape.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.step import OurStep, random_batch
from xkd import params
from xkd.data.views import TrainViews
from xkd.modalities.base import DRAWS
from xkd.plan.footprint import networks_without_memory
from xkd.recipe import Recipe
from xkd.training import forward, objective, sharing, step

AUGMENTATION = "augment: device"  # beside the step, on a stream of its own
VALUES = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2")


class Operations(TorchDispatchMode):
    """Counts dispatched operations by the part of the step that asks for them.

    Attributes:
        counts: by part the operations' names.
        waits: by part the operations that a device is waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part, self.counts, self.waits = "other", defaultdict[str, Counter](Counter), Counter[str]()
        self.views: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.startswith("aten::"):  # not what tensors without values ask of themselves
            self.counts[self.part][name] += 1
            self.views[self.part] += func.is_view
        if name in VALUES or (name in ("aten::index", "aten::index_put_") and _by_booleans(args[1])):
            self.waits[self.part] += 1
        if name == "aten::_local_scalar_dense":
            return 1  # whatever is asked, here nothing has a value
        return func(*args, **(kwargs or {}))

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Counts what happens inside for another part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Counts a function of a module or an object for a part from now on."""
        function: Callable = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return function(*args, **kwargs)

        setattr(owner, name, counted)


def _by_booleans(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def count(recipe: Recipe) -> Operations:
    """Counts the second step of a run: the optimiser's state is there."""
    operations = Operations()
    networks, views = deepcopy(networks_without_memory(recipe)), TrainViews(recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        networks.to_empty(device="cpu")
        ours, batch = OurStep(networks, recipe), random_batch(recipe)
        with operations:
            ours(*batch)
            operations.wrap(sharing, "run_networks", "networks, forward")
            operations.wrap(forward, "teacher_logits", "teachers")
            operations.wrap(objective.Objective, "forward", "objective")
            operations.wrap(torch.Tensor, "backward", "backward")
            operations.wrap(step, "clip_each", "clipping")
            operations.wrap(torch.optim.AdamW, "step", "optimiser")
            operations.wrap(type(ours.learner.networks), "update_teachers", "EMA")
            operations.wrap(sharing.SharedObjective, "finish", "logging")
            for counter in (operations.counts, operations.waits, operations.views):
                counter.clear()
            ours(*batch)
            with operations.within(AUGMENTATION):
                _augment(views, recipe)
    return operations


def _augment(views: TrainViews, recipe: Recipe) -> None:
    """Makes the views of a batch of cuts, as a GPU does with `training.augment: device`."""
    clips = recipe.training.batch_size
    cuts = {
        "video": [
            torch.empty(clips, v.frames, 3, v.size, v.size, dtype=torch.uint8, device="cuda")
            for v in views.settings.get("video", [])
        ],
        "audio": [
            torch.empty(clips, 1, recipe.logmel.n_mels, v.frames, device="cuda")
            for v in views.settings.get("audio", [])
        ],
    }
    views.finish(cuts, torch.empty(clips, max(map(len, cuts.values())), len(cuts), DRAWS, device="cuda"))


@click.command()
@click.option(
    "--params", "settings", default="workflow/presets/paper.yaml", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--ablation", default="xkd", show_default=True)
@click.option("--batch", default=2, show_default=True, help="Clips per step; it changes no count.")
@click.option("--precision", help="By default that of the settings.")
@click.option("--top", default=0, show_default=True, help="Also list so many operations of each part.")
def main(settings: Path, ablation: str, batch: int, precision: str | None, top: int) -> None:
    """Prints how many operations a training step dispatches."""
    recipe = params.recipe(params.load(settings), ablation)
    changed = {"batch_size": batch, "precision": precision or recipe.training.precision}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=changed)})
    found = count(recipe)
    table = Table(
        "part", "operations", "views", "casts", "kernels", "waits", title=f"{settings}, {ablation}, {changed}"
    )
    rows, beside = [], (AUGMENTATION, found.counts.pop(AUGMENTATION))
    for part, names in found.counts.items():
        views, casts = found.views[part], names["aten::_to_copy"]
        rows.append((names.total(), views, casts, names.total() - views, found.waits[part]))
        table.add_row(part, *map(str, rows[-1]))
    table.add_row("all", *(str(sum(column)) for column in zip(*rows, strict=True)))
    table.add_row(beside[0], str(beside[1].total()), *("",) * 3, str(found.waits[AUGMENTATION]))
    console = Console(width=140)
    console.print(table)
    for part, names in found.counts.items() if top else ():
        console.print(f"{part}: " + ", ".join(f"{name[6:]} {number}" for name, number in names.most_common(top)))


if __name__ == "__main__":
    main()
