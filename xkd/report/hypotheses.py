"""The hypotheses that the settings record, each with its verdict: results/verdicts.csv."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from xkd.protocols import Column
from xkd.report.collect import Results
from xkd.report.statistics import rounded, significant
from xkd.report.verdicts import Evidence, Verdict, decide, judge, region_of


@dataclass(frozen=True)
class Hypothesis:
    """One column of one expectation, and what the table says of it.

    Attributes:
        ablation, than: the row, and the one that it is compared with.
        direction: above, below, or equal within M.
        recorded: the verdict on record; None where the settings name none.
    """

    ablation: str
    than: str
    column: Column
    direction: str
    recorded: str | None
    verdict: Verdict

    @property
    def name(self) -> str:
        """Names it in one word, such as xkd.above.ae.student.video.linear."""
        return f"{self.ablation}.{self.direction}.{self.than}.{self.column}".replace(" ", "_")

    @property
    def change(self) -> str:
        """Says how the verdict differs from the one on record; "" where it does not."""
        if self.recorded in (None, self.verdict.word):
            return ""
        claim = f"{self.ablation} {self.direction} {self.than} in {self.column}"
        reason = f" ({self.verdict.evidence.reason})" if self.verdict.evidence.reason else ""
        return f"{claim}: {self.verdict.word}{reason}, on record as {self.recorded}"


def judged(results: Results) -> list[Hypothesis]:
    """Returns all hypotheses of the settings, in their order, with verdicts that are corrected over all of them."""
    rows = results.params.ablations
    asked = [(row, one, Column.parse(column)) for row in rows for one in rows[row].expects for column in one.columns]
    evidence = [_evidence(results, row, one.than, column, one.direction) for row, one, column in asked]
    return [
        Hypothesis(row, one.than, column, one.direction, one.verdict, verdict)
        for (row, one, column), verdict in zip(asked, decide(evidence), strict=True)
    ]


def verdict_table(found: list[Hypothesis]) -> pd.DataFrame:
    """Returns one line per hypothesis; cells that are not defined are empty.

    Columns: ablation, than, column, direction, verdict, recorded (in the settings), reason (why nothing could be
    tested), seeds, difference and sd of the differences (points), low and high (95 % interval of the difference,
    uncorrected), effect (Cohen's d_z), p and p_corrected (for the hypothesis), p_against and p_against_corrected, level
    (what an uncorrected p must reach to decide), seeds_needed (in total, to decide at that level with 80 % power; empty
    also above 10,000).
    """
    return pd.DataFrame([_line(one) for one in found], columns=list(_COLUMNS))


_COLUMNS = (
    *("ablation", "than", "column", "direction", "verdict", "recorded", "reason", "seeds", "difference", "sd"),
    *("low", "high", "effect", "p", "p_corrected", "p_against", "p_against_corrected", "level", "seeds_needed"),
)


def _evidence(results: Results, row: str, than: str, column: Column, direction: str) -> Evidence:
    pair = {name: results.values(name, column) for name in (row, than)}
    lacking = [name for name, values in pair.items() if values is None]
    if lacking:
        return Evidence(region_of(direction), reason=f"no figures of {' and '.join(lacking)}")
    return judge(pair[row] or (), pair[than] or (), direction)


def _line(one: Hypothesis) -> dict[str, object]:
    evidence, verdict = one.verdict.evidence, one.verdict
    low, high = evidence.interval or (None, None)
    points = {"difference": evidence.difference, "sd": evidence.sd, "low": low, "high": high}
    shares = {
        "effect": evidence.effect,
        **({} if evidence.reason else {"p": evidence.p, "p_against": evidence.p_against}),
        **({} if evidence.reason else {"p_corrected": verdict.p, "p_against_corrected": verdict.p_against}),
        "level": verdict.level,
    }
    return {
        **{"ablation": one.ablation, "than": one.than, "column": str(one.column), "direction": one.direction},
        **{"verdict": verdict.word, "recorded": one.recorded, "reason": evidence.reason, "seeds": evidence.seeds},
        **{name: rounded(value) for name, value in points.items()},
        **{name: significant(value) for name, value in shares.items()},
        "seeds_needed": "" if verdict.seeds_needed is None else str(verdict.seeds_needed),
    }
