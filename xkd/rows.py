"""Turns what the settings say in short into rows of the table: sweeps over values, and rows on several data sets.

Everything else knows rows only: the engines, the stages and the report train, evaluate and read them as those that the
settings write out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

from xkd.errors import UserError
from xkd.registry import suggest
from xkd.settings import Ablation, Params, Point, Sweep

LONGEST_NAME = 100
Settled = Callable[[Params, Ablation, str], str]


def expanded(params: Params, settled: Settled, path: str | Path) -> Params:
    """Returns the settings with a row for every further data set of a row and every point of a sweep.

    A point whose settings another row has already is that row: nothing is trained twice.

    Args:
        settled: validates a row (the text begins errors) and returns its settings as text, equal for equal trainings.
        path: of the settings, for errors.

    Raises:
        UserError: a sweep of an unknown row, a key or value that does not validate, or two rows of one name.
    """
    rows = _on_every_data_set(params, path)
    points: list[Point] = []
    same: dict[str, list[str]] = {}
    for name, row in rows.items() if params.sweeps else ():
        same.setdefault(settled(params, row, f"{path}: ablations.{name}.changes"), []).append(name)
    for name, sweep in params.sweeps.items():
        for of in sweep.of:
            if of not in rows:
                raise UserError(f"{path}: sweeps.{name}.of: no ablation '{of}'{suggest(of, rows)}")
        for of, values in product(sweep.of, product(*sweep.axes.values())):
            where = f"{path}: sweeps.{name}: {told(sweep, values)} in {of}"
            row = _row(rows[of], of, name, sweep, values)
            there, own = same.setdefault(settled(params, row, where), []), "_".join((of, name, named(values)))
            added = not there
            if added:
                _check_name(own, rows, where)
                rows[own] = row
                there.append(own)
            points.append(Point(name, of, values, of if of in there else there[0], added))
    return params.with_rows(rows, tuple(points))


def rows_of(params: Params, ablation: str) -> list[str]:
    """Returns a row and those with the same settings on further data sets."""
    others = (f"{ablation}_on_{dataset}" for dataset in params.ablations[ablation].datasets)
    return [ablation, *(name for name in others if name in params.ablations)]


def told(sweep: Sweep, values: tuple[Any, ...]) -> str:
    """Returns the settings of a point as `group.key=value`."""
    return ", ".join(f"{key}={spoken(value)}" for key, value in zip(sweep.axes, values, strict=True))


def spoken(value: object) -> str:
    """Returns a value as tables and figures show it: 0.3, [0.99, 1.0], none."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spoken, value))}]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def named(value: object) -> str:
    """Returns a value as part of a row's name: 0.3 is 0_3, [0.99, 1.0] is 0_99__1; letters, digits and _ only."""
    if isinstance(value, dict):
        return "__".join(f"{key}_{named(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return "__".join(map(named, value)) or "empty"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        digits = f"{Decimal(repr(value)):f}".removesuffix(".0")
        return digits.replace("-", "minus_").replace(".", "_")
    return re.sub(r"\W", "_", spoken(value), flags=re.ASCII)


def _on_every_data_set(params: Params, path: str | Path) -> dict[str, Ablation]:
    """Returns all rows that are no points of sweeps; what a row expects is not expected on its further data sets."""
    rows: dict[str, Ablation] = {}
    for name, row in params.ablations.items():
        rows[name] = row
        for dataset in row.datasets:
            if dataset != (row.dataset or params.dataset):
                other = f"{name}_on_{dataset}"
                _check_name(other, params.ablations, f"{path}: ablations.{name}.datasets")
                rows[other] = row.model_copy(update={"dataset": dataset, "datasets": (), "expects": ()})
    return rows


def _row(row: Ablation, of: str, name: str, sweep: Sweep, values: tuple[Any, ...]) -> Ablation:
    """Returns a row with the values of a point; what the paper reports for the row does not hold for these."""
    changes = deepcopy(row.changes)
    for key, value in zip(sweep.axes, values, strict=True):
        place, (*groups, last) = changes, key.split(".")
        for group in groups:
            if not isinstance(place.get(group), dict):
                place[group] = {}
            place = place[group]
        place[last] = value
    words = f"Sweep {name}: {told(sweep, values)} in the row {of}. {sweep.hypothesis}".strip()
    return Ablation(hypothesis=words[:2000], dataset=row.dataset, changes=changes, resources=row.resources)


def _check_name(name: str, rows: dict[str, Ablation], where: str) -> None:
    if name in rows:
        raise UserError(f"{where}: makes a row '{name}', but there is another one of that name; rename that row")
    if len(name) > LONGEST_NAME:
        raise UserError(f"{where}: makes a row '{name}', longer than {LONGEST_NAME} characters; choose a shorter name")
