"""The rule that tells whether teachers or features collapsed: at the end of a run for the report, and while it trains.

What is judged and by which thresholds, the terms of the objective declare (`xkd.logged.CollapseSign`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xkd.logged import CollapseSign, LoggedColumn, Threshold, unit_value

EDGE = 0.05  # share of the steps that counts as the start, as the end, and as now
# Share of the steps before which there is no alarm: networks that training has hardly moved may give similar outputs
# for all clips.
SETTLED = 0.1
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

    @property
    def about(self) -> tuple[str, str]:
        """Verdict and owner."""
        return self.threshold.verdict, self.sign.owner

    def __str__(self) -> str:
        verb = {"collapsed": "has collapsed", "collapsing": "seems to collapse"}[self.threshold.verdict]
        return f"the {self.sign.owner} {verb}: {self.threshold.words} ({self.sign.title}: {self.value:.3g})"


def readings(steps: pd.DataFrame, columns: Iterable[LoggedColumn], logits: int) -> list[Reading]:
    """Returns what the columns of steps.csv say; those that a run does not log are left out.

    Args:
        steps: of a finished run.
        logits: columns of the projection heads, K.
    """
    return [one for column in columns if (one := _reading(steps, column, logits))]


def alarms(
    steps: Sequence[Mapping[str, float]], columns: Iterable[LoggedColumn], logits: int, total: int
) -> list[Alarm]:
    """Returns the first alarm of each owner, such as "video teacher", and verdict, in the order of their steps.

    Thresholds that only make a run suspect raise no alarm, and none comes before `SETTLED` of the steps.

    Args:
        steps: rows of the steps so far, numbered from 0 (column `step`).
        columns: as for `readings`.
        logits: columns of the projection heads, K.
        total: number of steps of the whole run.
    """
    found: dict[tuple[str, str], Alarm] = {}
    every = [alarm for column in columns for alarm in _alarms(steps, column, logits, total)]
    for alarm in sorted(every, key=lambda alarm: alarm.step):
        found.setdefault(alarm.about, alarm)
    return list(found.values())


def _reading(steps: pd.DataFrame, column: LoggedColumn, logits: int) -> Reading | None:
    values = steps[column.name].dropna() if column.name in steps else pd.Series(dtype=float)
    if values.empty or column.sign is None:
        return None
    count = _window(len(values))
    start, end = float(values.head(count).mean()), float(values.tail(count).mean())
    unit = unit_value(column.sign.unit, logits, start)
    return Reading(column.sign, start / unit, end / unit) if unit else None


def _alarms(steps: Sequence[Mapping[str, float]], column: LoggedColumn, logits: int, total: int) -> Iterable[Alarm]:
    sign, window = column.sign, _window(total)
    if sign is None:
        return
    known = [(row["step"] + 1, row[column.name]) for row in steps if math.isfinite(row.get(column.name, math.nan))]
    if len(known) < window:
        return
    done, values = np.array(known, dtype=float).T
    unit = unit_value(sign.unit, logits, float(values[:window].mean()))
    now, done = (
        np.lib.stride_tricks.sliding_window_view(values, window).mean(1) / (unit or math.nan),
        done[window - 1 :],
    )
    for threshold in sign.thresholds:
        judged = (done >= SETTLED * total) & (done <= threshold.within * total)
        crossed = np.flatnonzero(judged & threshold.crossed(now))
        if threshold.verdict != "suspect" and len(crossed):
            yield Alarm(int(done[crossed[0]]), sign, threshold, float(now[crossed[0]]))


def _window(steps: int) -> int:
    return max(1, round(EDGE * steps))
