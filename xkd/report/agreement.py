"""Judges the orderings that the paper claims by this table; levels are not comparable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from xkd.data.catalogue import is_own
from xkd.params import recipe
from xkd.protocols import Column
from xkd.report.collect import Results
from xkd.report.counterparts import PAPER_NAMES, Counterparts, paper_protocol
from xkd.report.paper import KINETICS, LITTLE, Claim, Measure, PaperResults
from xkd.report.statistics import rounded, significant
from xkd.report.text import EMPTY, TextTable
from xkd.report.verdicts import CONTRADICTED, ERROR_RATE, SUPPORTED, UNDECIDED, Evidence, Verdict, decide, judge

AGREES, DISAGREES, CANNOT_TELL, NOT_MEASURED = "agrees", "disagrees", "cannot tell", "not measured"
WORDS = {SUPPORTED: AGREES, CONTRADICTED: DISAGREES, UNDECIDED: CANNOT_TELL}


@dataclass(frozen=True)
class Pair:
    """Two rows of ours, and the column in which they stand for the two rows of a claim."""

    row: str
    than: str
    column: Column


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, and what one column of ours says of it.

    Attributes:
        sizes: points between the two rows in the paper; where `same`, those of the same measure as ours alone.
        direction: what is tested, such as "above" or "equal within 1.0".
        same: whether ours measures what the paper's figures do.
        ours, evidence, verdict: None where no rows or columns of ours can stand for the paper's.
    """

    claim: Claim
    sizes: dict[Measure, float]
    direction: str
    same: bool = False
    ours: Pair | None = None
    evidence: Evidence | None = None
    verdict: Verdict | None = None

    @property
    def word(self) -> str:
        """Agrees, disagrees, cannot tell or not measured."""
        return WORDS[self.verdict.word] if self.verdict else NOT_MEASURED

    @property
    def p(self) -> float | None:
        """The corrected p-value of the test that the verdict rests on: against the claim where it disagrees."""
        if self.verdict is None:
            return None
        return self.verdict.p_against if self.word == DISAGREES else self.verdict.p


def findings(results: Results) -> list[Finding]:
    """Returns what this table says of each claim of the paper, corrected by Holm over all that it can judge.

    Where figures of ours measure what the paper's do, these decide. Otherwise orderings on other data do: the rows that
    stand for the paper's and were pretrained on the same data, in the first column of the claim's modality and
    protocol on the table's data set, unless that is the user's own.
    """
    paper = PaperResults()
    counterparts = Counterparts(results, paper)
    claims = [(claim, paper.sizes(claim)) for claim in paper.claims]
    found = [_same_measures(counterparts, *claim) for claim in claims]
    if not any(found):
        found = [_same_orderings(counterparts, *claim) for claim in claims]
    listed = [
        one
        for (claim, sizes), ours in zip(claims, found, strict=True)
        for one in ours or [Finding(claim, sizes, claim.direction(sizes))]
    ]
    verdicts = iter(decide([one.evidence for one in listed if one.evidence]))
    return [replace(one, verdict=next(verdicts)) if one.evidence else one for one in listed]


def _same_measures(counterparts: Counterparts, claim: Claim, sizes: dict[Measure, float]) -> list[Finding]:
    """Compares our figures that measure what one of the paper does; teachers only where a row has no student."""
    found = []
    for row, than in _rows(counterparts.results, claim):
        if not claim.than_pretraining and not _comparable(counterparts, row, than):
            continue
        ours, others = counterparts.measured[row], counterparts.measured[than]
        shared = {
            column: measure
            for column, (_, measure) in ours.items()
            if measure in sizes and column in others and others[column][1] == claim.other(measure)
        }
        students = {column: measure for column, measure in shared.items() if column.owner == "student"}
        for column, measure in (students or shared).items():
            one = _judged(counterparts.results, claim, _of_protocol(sizes, measure.protocol), Pair(row, than, column))
            found.append(replace(one, sizes={measure: sizes[measure]}, same=True))
    return found


def _same_orderings(counterparts: Counterparts, claim: Claim, sizes: dict[Measure, float]) -> list[Finding]:
    results, found = counterparts.results, []
    if is_own(results.params.datasets[results.params.dataset].kind):
        return []
    protocols = dict.fromkeys(measure.protocol for measure in sizes) if not claim.than_pretraining else {}
    for row, than in _rows(results, claim):
        if not _comparable(counterparts, row, than):
            continue
        shared = _columns(results, row) & _columns(results, than)
        for protocol in protocols:
            columns = [
                column
                for column in results.main_columns
                if column in shared
                and paper_protocol(column) == protocol
                and PAPER_NAMES.get(column.modality, column.modality) == claim.modality
            ]
            of_protocol = _of_protocol(sizes, protocol)
            found += [_judged(results, claim, of_protocol, Pair(row, than, column)) for column in columns[:1]]
    return found


def _rows(results: Results, claim: Claim) -> list[tuple[str, str]]:
    """Returns the rows of ours that stand for the paper's."""
    ours, others = ([n for n in results.runs if results.params.ablations[n].paper == m] for m in claim.methods)
    return [(row, than) for row in ours for than in others if row != than]


def _comparable(counterparts: Counterparts, row: str, than: str) -> bool:
    """Returns whether two rows were pretrained on the same data; of given encoders only the kind of data is known."""
    one, other = (counterparts.pretraining(name) for name in (row, than))
    given = any(recipe(counterparts.results.params, name).training.given for name in (row, than))
    return one == other or (given and one.kind is not None and one.kind == other.kind)


def _columns(results: Results, ablation: str) -> set[Column]:
    """Returns the columns of a row that are about the table's data set, or another one of its kind."""
    kind = results.params.datasets[results.params.dataset].kind
    return {column for column, figure in results.figures(ablation).items() if results.kind(figure.task) == kind}


def _of_protocol(sizes: dict[Measure, float], protocol: str) -> dict[Measure, float]:
    return {measure: size for measure, size in sizes.items() if measure.protocol == protocol}


def _judged(results: Results, claim: Claim, sizes: dict[Measure, float], ours: Pair) -> Finding:
    values, others = (results.values(name, ours.column) or [] for name in (ours.row, ours.than))
    direction = claim.direction(sizes)
    return Finding(claim, sizes, direction, ours=ours, evidence=judge(values, others, direction))


def table(found: list[Finding], digits: int) -> TextTable:
    """Returns a row for each finding: the claim, both differences with interval and corrected p, and the verdict."""
    foreign = "PAPER: points"
    header = ["the paper says", "as an ordering", "verdict", "here: points", foreign, "table of the paper", "here"]
    rows = [
        [
            one.claim.says + (" (abstract)" if one.claim.abstract else ""),
            f"{one.claim}{f', {one.direction}' if one.claim.expects == 'equal' else ''}",
            one.word,
            _here(one, digits),
            ", ".join(f"{measured(measure)} {size:+.1f}" for measure, size in one.sizes.items()),
            one.claim.table,
            f"{one.ours.row}, {one.ours.than}: {one.ours.column}" if one.ours else EMPTY,
        ]
        for one in found
    ]
    return TextTable(header, rows, {foreign})


def note(results: Results, found: list[Finding]) -> str:
    """Returns what stands above the table: how many agree, and how that was judged."""
    judged = [one for one in found if one.ours]
    if not judged:
        if is_own(results.params.datasets[results.params.dataset].kind):
            return "The clips are your own, and no row was measured as one of the paper was: nothing can be compared."
        return "No two rows of this table stand for rows that the paper orders, in a column that both have."
    ours = "our figures that measure what the paper's do" if judged[0].same else "our figures on other data"
    return (
        f"The paper's orderings, judged by {ours}: {counts(found)}. Orderings can be compared, levels cannot. A "
        "claim that one row is above another agrees or disagrees where a one-sided t-test shows it, paired over seeds, "
        f"at {ERROR_RATE}, corrected by Holm over {len(judged)} comparisons. A claim that two rows are alike means: "
        f"within the largest difference that the paper's figures show, and {LITTLE:g} point at least."
    )


def counts(found: list[Finding]) -> str:
    """Returns text such as "agrees 5, disagrees 1, cannot tell 4, not measured 7"."""
    words = [one.word for one in found]
    return ", ".join(f"{word} {words.count(word)}" for word in (*WORDS.values(), NOT_MEASURED))


def measured(measure: Measure) -> str:
    """Returns the data set of a figure of the paper, with the protocol and pretraining where they are not the usual."""
    unusual = [word for word in (measure.protocol, measure.pretraining) if word not in ("linear", KINETICS)]
    return " ".join([measure.task, *unusual])


def frame(found: list[Finding]) -> pd.DataFrame:
    """Returns paper-agreement.csv: a row for each finding.

    Columns: table, row, than, modality (in the paper's names), expects, abstract, verdict; paper_sets and paper_points,
    separated by ";"; same_measure (whether ours measures what these do); our_row, our_than, our_column, seeds;
    difference, low, high (95 % interval) in points; p and p_against, corrected by Holm, of the tests for and against
    the claim; seeds_needed (to decide). Empty: not measured, or not defined.
    """
    return pd.DataFrame([_record(one) for one in found])


def _record(one: Finding) -> dict[str, Any]:
    claim = one.claim
    return {
        "table": claim.table,
        "row": claim.row,
        "than": claim.than,
        "modality": claim.modality,
        "expects": one.direction,
        "abstract": claim.abstract,
        "verdict": one.word,
        "paper_sets": ";".join(map(measured, one.sizes)),
        "paper_points": ";".join(f"{size:.1f}" for size in one.sizes.values()),
        "same_measure": one.same if one.ours else None,
        **_our_record(one),
    }


def _our_record(one: Finding) -> dict[str, Any]:
    if one.ours is None or one.evidence is None or one.verdict is None:
        names = ("our_row", "our_than", "our_column", "seeds", "difference", "low", "high", "p", "p_against")
        return dict.fromkeys((*names, "seeds_needed"))
    low, high = one.evidence.interval or (None, None)
    needed = one.verdict.seeds_needed
    return {
        "our_row": one.ours.row,
        "our_than": one.ours.than,
        "our_column": str(one.ours.column),
        "seeds": str(one.evidence.seeds),
        "difference": rounded(one.evidence.difference),
        "low": rounded(low),
        "high": rounded(high),
        "p": significant(one.verdict.p),
        "p_against": significant(one.verdict.p_against),
        "seeds_needed": str(needed) if needed else None,
    }


def _here(one: Finding, digits: int) -> str:
    evidence, p = one.evidence, one.p
    if evidence is None or evidence.difference is None or p is None:
        return EMPTY
    parts = [] if evidence.interval is None else ["[{:+.{d}f}, {:+.{d}f}]".format(*evidence.interval, d=digits)]
    parts += [evidence.reason or (f"p {p:.2g}" if p >= 0.001 else "p < 0.001")]
    return f"{evidence.difference:+.{digits}f} ({', '.join(parts)})"
