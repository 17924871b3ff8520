"""Checks that need more than one group of the settings, and no merged row."""

from __future__ import annotations

import os
from pathlib import Path

from xkd import registry
from xkd.errors import UserError
from xkd.registry import suggest
from xkd.settings.params import Params

# Names in the project that are no folders of results.
TAKEN = {
    "data",
    "runs",
    "evals",
    "features",
    "checkpoints",
    "logs",
    "mlruns",
    "mlartifacts",
    "mlflow-unsent",
    "mlflow.db",
} | {*("xkd", "workflow", "docs", "tests", "benchmarks", "site", "screenshots")}


def check(params: Params, path: str | Path) -> None:
    """Checks folder, data sets, seeds and columns.

    Raises:
        UserError: one of them is not possible; `path` begins the message.
    """
    _check_results(Path(params.results), path)
    _check_data_sets(params, path)
    if len(set(params.seeds)) != len(params.seeds):
        raise UserError(f"{path}: seeds: each seed may be listed once")
    _check_columns(params, path)


def _check_data_sets(params: Params, path: str | Path) -> None:
    own = [("dataset", params.dataset)]
    own += [(f"ablations.{name}.dataset", row.dataset) for name, row in params.ablations.items() if row.dataset]
    own += [(f"ablations.{name}.datasets", one) for name, row in params.ablations.items() for one in row.datasets]
    own += [(f"tasks.{name}.dataset", task.dataset) for name, task in params.tasks.items() if task.dataset]
    for place, dataset in own:
        if dataset not in params.datasets:
            raise UserError(f"{path}: {place}: '{dataset}' is not in datasets{suggest(dataset, params.datasets)}")


def _check_columns(params: Params, path: str | Path) -> None:
    """Refuses two tasks whose figures would share a column of the table."""
    taken: dict[str, str] = {}
    for name, task in params.tasks.items():
        for method in registry.protocols[task.protocol].methods_of(name, task.protocol):
            other = taken.setdefault(method, name)
            if other != name:
                raise UserError(f"{path}: tasks.{other} and tasks.{name} would share a column of the table; rename one")


def _check_results(results: Path, path: str | Path) -> None:
    """Refuses a folder of results that holds other files of the project."""
    here, there = Path.cwd().resolve(), Path(os.path.realpath(results))
    first = there.relative_to(here).parts[:1] if there.is_relative_to(here) else ()
    if here.is_relative_to(there) or (first and (first[0].casefold() in TAKEN or first[0].startswith("."))):
        raise UserError(f"{path}: results: '{results}' holds other files of the project; name a folder of its own")
