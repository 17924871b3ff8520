"""The columns of a run's curves: their names, titles for people, natural limits and signs of collapse.

Terms of the objective declare their columns, `pretrain` writes them into metrics.json, and the report reads them there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

Unit = Literal["log K", "√K", "start", "1"]


@dataclass(frozen=True)
class Threshold:
    """A value from which on a column is a sign of collapse.

    Attributes:
        verdict: what a run is called that crosses it.
        level: in units of the sign.
        words: what is wrong then, such as "targets uniform".
        rule: the threshold as part of a sentence; {level} stands for the level, {within} for that share.
        below: whether lower values are the bad ones.
        within: share of the steps up to which it counts, since healthy runs may come there later; 1: at the end, too.
    """

    verdict: Literal["collapsed", "collapsing", "suspect"]
    level: float
    words: str
    rule: str
    below: bool = False
    within: float = 1.0

    def crossed(self, value: Any) -> Any:
        """Tells whether a value in the sign's unit, or each of an array's, is at the threshold or beyond it."""
        return value <= self.level if self.below else value >= self.level


@dataclass(frozen=True)
class CollapseSign:
    """A rule that judges a column while training and at its end (`xkd.collapse`); the first threshold crossed counts.

    Attributes:
        title: heading in the report, such as "teacher entropy / log K, video".
        owner: what has collapsed then, such as "video teacher".
        unit: what values are divided by; "start" is the column's value at the start of training.
    """

    title: str
    owner: str
    unit: Unit
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True)
class LoggedColumn:
    """A column of steps.csv and history.csv.

    Attributes:
        title: heading of its panel in the report; before the comma it names what panels of both modalities show.
        kind: a loss is minimised, a diagnostic is only logged.
        row: row of panels in the report's figure.
        limit: a value of which a curve should stay clear, drawn as a dotted line.
    """

    name: str
    title: str
    kind: Literal["loss", "diagnostic"] = "loss"
    row: int = 2
    limit: Unit | None = None
    sign: CollapseSign | None = None


def each(names: Iterable[str], column: LoggedColumn) -> tuple[LoggedColumn, ...]:
    """Returns a column for each name, a modality say, one row of panels each.

    Args:
        names: replace {} in the column's texts; of the first two, their panels stand in the report's first two rows.
        column: the pattern, such as `LoggedColumn("reconstruction_{}", "reconstruction, {}")`.
    """
    return tuple(_filled(column, name, row) for row, name in enumerate(names))


def unit_value(unit: Unit, logits: int, start: float = 1.0) -> float:
    """Returns what a unit stands for.

    Args:
        logits: columns of the projection heads, K.
        start: the column's value at the start of training.
    """
    return {"log K": math.log(logits), "√K": math.sqrt(logits), "start": start, "1": 1.0}[unit]


def _filled(column: LoggedColumn, name: str, row: int) -> LoggedColumn:
    sign = column.sign
    if sign:
        sign = replace(sign, title=sign.title.format(name), owner=sign.owner.format(name))
    return replace(column, name=column.name.format(name), title=column.title.format(name), row=row, sign=sign)
