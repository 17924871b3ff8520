"""Says in plain words which runs collapsed, and by which rule (`xkd.collapse`)."""

from __future__ import annotations

from dataclasses import dataclass

from xkd.collapse import HEALTHY, Reading, readings
from xkd.logged import CollapseSign
from xkd.params import recipe
from xkd.report.collect import Results, Run
from xkd.report.curves import described_columns, read_columns
from xkd.report.text import EMPTY, TextTable
from xkd.runs.records import read_curve

NONE = "nothing to judge"


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
    """Returns the rules by which a run is collapsed, by which it is suspect, and by which training warns, each once."""
    thresholds = [threshold for sign in _signs(results) for threshold in sign.thresholds]
    rules: dict[str, list[str]] = {"collapsed": [], "suspect": [], "collapsing": []}
    for threshold in thresholds:
        rule = threshold.rule.format(level=threshold.level, within=threshold.within)
        if rule not in rules[threshold.verdict]:
            rules[threshold.verdict].append(rule)
    return rules


def _signs(results: Results) -> list[CollapseSign]:
    return [column.sign for column in described_columns(results) if column.sign]
