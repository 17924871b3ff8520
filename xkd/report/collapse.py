"""Judges by a stated rule whether teachers or features collapsed: the signs that the terms of the objective declare."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from xkd.logged import CollapseSign, LoggedColumn, unit_value
from xkd.params import recipe
from xkd.report.collect import Results, Run
from xkd.report.curves import described_columns, read_columns
from xkd.report.text import EMPTY, TextTable
from xkd.runs.records import read_curve

EDGE = 0.05  # share of the steps that counts as the start, and as the end
HEALTHY, NONE = "healthy", "nothing to judge"


@dataclass(frozen=True)
class Reading:
    """One sign, in its unit; `start` and `end` are means over `EDGE` of the steps."""

    sign: CollapseSign
    start: float
    end: float

    @property
    def finding(self) -> tuple[str, str]:
        """Verdict and, unless healthy, what is wrong."""
        crossed = [threshold for threshold in self.sign.thresholds if threshold.crossed(self.end)]
        return (crossed[0].verdict, crossed[0].words) if crossed else (HEALTHY, "")


@dataclass(frozen=True)
class Verdict:
    """All readings of one run."""

    run: Run
    readings: list[Reading]

    @property
    def word(self) -> str:
        """The worst finding."""
        found = {reading.finding[0] for reading in self.readings}
        return next((word for word in ("collapsed", "suspect", HEALTHY) if word in found), NONE)

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        if not self.readings:
            return f"{NONE}: this row logs no indicator"
        reasons: dict[str, list[str]] = {}
        for reading in self.readings:
            if reading.finding[1]:
                reasons.setdefault(reading.sign.owner, []).append(reading.finding[1])
        said = "; ".join(f"{who}: {', '.join(found)}" for who, found in reasons.items())
        return f"{self.word}: {said or 'no sign of collapse'}"

    def cell(self, sign: CollapseSign) -> str:
        """Returns "start → end" of one sign, or a dash."""
        return next((f"{one.start:.2f} → {one.end:.2f}" for one in self.readings if one.sign == sign), EMPTY)


def verdict_table(results: Results) -> TextTable:
    """Returns one line per ablation and seed, in the order of the settings."""
    signs = _signs(results)
    rows = []
    for name, runs in results.runs.items():
        logits = recipe(results.params, name).model.head.out
        for run in runs:
            one = Verdict(run, readings(read_curve(run.folder / "steps.csv"), read_columns(run), logits))
            rows.append([run.ablation, str(run.seed), one.sentence, *(one.cell(sign) for sign in signs)])
    return TextTable(["ablation", "seed", "verdict", *(sign.title for sign in signs)], rows)


def verdict_rules(results: Results) -> dict[str, list[str]]:
    """Returns the rules by which a run is collapsed, and by which it is suspect, each once."""
    thresholds = [threshold for sign in _signs(results) for threshold in sign.thresholds]
    rules: dict[str, list[str]] = {"collapsed": [], "suspect": []}
    for threshold in thresholds:
        rule = threshold.rule.format(level=threshold.level)
        if rule not in rules[threshold.verdict]:
            rules[threshold.verdict].append(rule)
    return rules


def readings(steps: pd.DataFrame, columns: list[LoggedColumn], logits: int) -> list[Reading]:
    """Returns what the columns of steps.csv say; those that a run does not log are left out.

    Args:
        logits: columns of the projection heads, K.
    """
    return [one for column in columns if (one := _reading(steps, column, logits))]


def _signs(results: Results) -> list[CollapseSign]:
    return [column.sign for column in described_columns(results) if column.sign]


def _reading(steps: pd.DataFrame, column: LoggedColumn, logits: int) -> Reading | None:
    values = steps[column.name].dropna() if column.name in steps else pd.Series(dtype=float)
    if values.empty or column.sign is None:
        return None
    count = max(1, round(EDGE * len(values)))
    start, end = float(values.head(count).mean()), float(values.tail(count).mean())
    unit = unit_value(column.sign.unit, logits, start)
    return Reading(column.sign, start / unit, end / unit) if unit else None
