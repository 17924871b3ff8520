"""The rule that tells whether teachers or features collapsed: at the end of a run for the report, and while it trains.

What is judged and by which thresholds, the terms of the objective declare (`xkd.logged.CollapseSign`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from xkd.logged import CollapseSign, LoggedColumn, Threshold, unit_value

EDGE = 0.05  # share of the steps that counts as the start, as the end, and as now
HEALTHY = "healthy"


@dataclass(frozen=True)
class Reading:
    """One sign at the end of a run, in its unit; `start` and `end` are means over `EDGE` of the steps."""

    sign: CollapseSign
    start: float
    end: float

    @property
    def finding(self) -> tuple[str, str]:
        """Verdict and, unless healthy, what is wrong."""
        crossed = [one for one in self.sign.thresholds if one.within == 1 and one.crossed(self.end)]
        return (crossed[0].verdict, crossed[0].words) if crossed else (HEALTHY, "")


@dataclass(frozen=True)
class Alarm:
    """The first step of a run at which a sign of collapse was beyond a threshold.

    Attributes:
        step: number of steps that were done.
        value: of the sign, in its unit: the mean over the `EDGE` of all steps that ends there.
    """

    step: int
    sign: CollapseSign
    threshold: Threshold
    value: float


def readings(steps: pd.DataFrame, columns: Iterable[LoggedColumn], logits: int) -> list[Reading]:
    """Returns what the columns of steps.csv say; those that a run does not log are left out.

    Args:
        steps: of a finished run.
        logits: columns of the projection heads, K.
    """
    return [one for column in columns if (one := _reading(steps, column, logits))]


def alarms(
    steps: Sequence[Mapping[str, float]], columns: Iterable[LoggedColumn], logits: int, total: int
) -> dict[str, Alarm]:
    """Returns the first alarm of each owner, such as "video teacher"; none for those that are well.

    Thresholds that only make a run suspect raise no alarm.

    Args:
        steps: rows of the steps so far, numbered from 0 (column `step`).
        columns: as for `readings`.
        logits: columns of the projection heads, K.
        total: number of steps of the whole run.
    """
    found: dict[str, Alarm] = {}
    for column in columns:
        for alarm in _alarms(steps, column, logits, total):
            earlier = found.get(alarm.sign.owner)
            if earlier is None or alarm.step < earlier.step:
                found[alarm.sign.owner] = alarm
    return found


def _reading(steps: pd.DataFrame, column: LoggedColumn, logits: int) -> Reading | None:
    values = steps[column.name].dropna() if column.name in steps else pd.Series(dtype=float)
    if values.empty or column.sign is None:
        return None
    count = _window(len(values))
    start, end = float(values.head(count).mean()), float(values.tail(count).mean())
    unit = unit_value(column.sign.unit, logits, start)
    return Reading(column.sign, start / unit, end / unit) if unit else None


def _alarms(steps: Sequence[Mapping[str, float]], column: LoggedColumn, logits: int, total: int) -> Iterable[Alarm]:
    window, sign = _window(total), column.sign
    values = pd.Series({row["step"] + 1: row.get(column.name, math.nan) for row in steps} if sign else {}).dropna()
    if sign is None or len(values) < window:
        return
    unit = unit_value(sign.unit, logits, float(values.head(window).mean()))
    now = values.rolling(window).mean().dropna() / (unit or math.nan)
    for threshold in sign.thresholds:
        crossed = now[threshold.crossed(now) & (now.index <= threshold.within * total)]
        if threshold.verdict != "suspect" and len(crossed):
            yield Alarm(int(crossed.index[0]), sign, threshold, float(crossed.iloc[0]))


def _window(steps: int) -> int:
    return max(1, round(EDGE * steps))
