"""Did teachers or features collapse? A stated rule, applied to every run.

Logits of the projection heads have zero mean and unit variance per clip, hence length sqrt(K). The centre, their running
mean, is as long as that only if all clips have the same logits: its length over sqrt(K) says how alike a teacher's
outputs are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pandas as pd

from xkd.params import recipe
from xkd.report.collect import Results, Run
from xkd.report.text import EMPTY, TextTable
from xkd.runs.records import read_curve
from xkd.settings import MODALITIES

KINDS = {"entropy": "teacher entropy / log K", "centre": "centre norm / √K", "spread": "feature spread / start"}

EDGE = 0.05  # share of the steps that counts as the start, and as the end
UNIFORM, NEARLY_UNIFORM, ONE_HOT = 0.99, 0.9, 0.05  # entropy over log K
ALIKE, NEARLY_ALIKE = 0.995, 0.97  # centre's length over sqrt(K)
FLAT, SHRUNK = 0.1, 0.5  # spread of features over that of the start
COLLAPSED, SUSPECT, HEALTHY, NONE = "collapsed", "suspect", "healthy", "nothing to judge"


@dataclass(frozen=True)
class Reading:
    """One indicator of one modality, relative to its natural scale; `start` and `end` are means over `EDGE` of the steps.

    Attributes:
        kind: "entropy" (over log K), "centre" (over √K) or "spread" (over its start).
    """

    kind: str
    modality: str
    start: float
    end: float

    @property
    def finding(self) -> tuple[str, str]:
        """Verdict and, unless healthy, what is wrong."""
        value = self.end
        if self.kind == "entropy" and value <= ONE_HOT:
            return SUSPECT, "targets one-hot"
        if self.kind == "entropy" and value >= NEARLY_UNIFORM:
            return _graded(value >= UNIFORM, "targets {}uniform")
        if self.kind == "centre" and value >= NEARLY_ALIKE:
            return _graded(value >= ALIKE, "outputs {}the same for all clips")
        if self.kind == "spread" and value <= SHRUNK:
            return _graded(value <= FLAT, "features {}the same for all clips")
        return HEALTHY, ""


@dataclass(frozen=True)
class Verdict:
    """All readings of one run."""

    run: Run
    readings: list[Reading]

    @property
    def word(self) -> str:
        """The worst finding."""
        found = {reading.finding[0] for reading in self.readings}
        return next((word for word in (COLLAPSED, SUSPECT, HEALTHY) if word in found), NONE)

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        if not self.readings:
            return f"{NONE}: this row logs no indicator"
        reasons: dict[str, list[str]] = {}
        for reading in self.readings:
            if reading.finding[1]:
                owner = "student" if reading.kind == "spread" else "teacher"
                reasons.setdefault(f"{reading.modality} {owner}", []).append(reading.finding[1])
        said = "; ".join(f"{who}: {', '.join(found)}" for who, found in reasons.items())
        return f"{self.word}: {said or 'no sign of collapse'}"

    def cell(self, kind: str, modality: str) -> str:
        """ "start → end" of one indicator, or a dash."""
        for one in self.readings:
            if (one.kind, one.modality) == (kind, modality):
                return f"{one.start:.2f} → {one.end:.2f}"
        return EMPTY


def verdicts(results: Results) -> list[Verdict]:
    """One per ablation and seed, in the order of the settings."""
    found = []
    for name, runs in results.runs.items():
        logits = recipe(results.params, name).model.head.out
        found += [Verdict(run, readings(read_curve(run.folder / "steps.csv"), logits)) for run in runs]
    return found


def table(results: Results) -> TextTable:
    """One line per run."""
    header = ["ablation", "seed", "verdict"]
    header += [f"{KINDS[kind]}, {modality}" for kind in KINDS for modality in MODALITIES]
    rows = [
        [one.run.ablation, str(one.run.seed), one.sentence, *(one.cell(k, m) for k in KINDS for m in MODALITIES)]
        for one in verdicts(results)
    ]
    return TextTable(header, rows)


def readings(steps: pd.DataFrame, logits: int) -> list[Reading]:
    """What the columns of steps.csv say; those that a run does not log are left out.

    Args:
        logits: columns of the projection heads, K.
    """
    scales = {
        "entropy": ("teacher_entropy", lambda start: math.log(logits)),
        "centre": ("centre_norm", lambda start: math.sqrt(logits)),
        "spread": ("feature_spread", lambda start: start),
    }
    return [
        one
        for (kind, (column, scale)), modality in product(scales.items(), MODALITIES)
        if (one := _reading(steps, kind, modality, f"{column}_{modality}", scale))
    ]


def _reading(
    steps: pd.DataFrame, kind: str, modality: str, column: str, scale: Callable[[float], float]
) -> Reading | None:
    values = steps[column].dropna() if column in steps else pd.Series(dtype=float)
    if values.empty:
        return None
    count = max(1, round(EDGE * len(values)))
    start, end = float(values.head(count).mean()), float(values.tail(count).mean())
    unit = scale(start)
    return Reading(kind, modality, start / unit, end / unit) if unit else None


def _graded(extreme: bool, words: str) -> tuple[str, str]:
    """Verdict, and the words with what weakens them in place of the braces."""
    return (COLLAPSED, words.format("")) if extreme else (SUSPECT, words.format("almost "))
