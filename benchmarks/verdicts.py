r"""Simulated tables: how often a verdict is wrong, and whether the seeds that it asks for suffice.

    python -m benchmarks.verdicts                  # 1,000 tables of each kind
    python -m benchmarks.verdicts --tables 100

The tables have the rows and the hypotheses of params.yaml. A figure is the true level of its row and column, plus
normal effects of the seed (on all rows) and of row and seed, half of which is common to the columns. Three parts:

- No effect: what is expected is false, but only just: no difference where `above` or `below` is expected, a difference
  of exactly the margin where `equal within` is. In at most 5 % of tables anything may be called supported, and in at
  most 5 % anything contradicted that is not.
- Planted effects: one hypothesis is made true, or its opposite. The number of seeds is the one that a table of five
  seeds prints if its differences and deviations happen to be the true ones. At least 80 % of tables with so many seeds,
  judged whole, must decide.
- As in practice, the number comes from a random table of five seeds: estimates scatter, and the number with them.

A rate on the wrong side of its target by more than three standard errors ends the script with an error.
"""

from __future__ import annotations

import math

import click
import numpy as np

from xkd import params
from xkd.report.verdicts import CONTRADICTED, ERROR_RATE, POWER, SUPPORTED, Verdict, decide, judge, power, region_of

SEEDS = 5
SEED_SD, RUN_SD = 1.0, 2.0  # points
DIFFERENCE_SD = RUN_SD * math.sqrt(2)
VIDEO, BOTH = "student.video.linear", "student.both.linear"
PLANTED = (  # hypothesis, true difference in points
    (("xkd", "ae", VIDEO, "above"), 3.0),
    (("xkd", "ae", VIDEO, "above"), 6.0),
    (("xkd_no_refinement", "xkd", VIDEO, "below"), 3.0),
    (("xkd_mas", "xkd", BOTH, "equal within 3.0"), 0.0),
    (("xkd_mas", "xkd", BOTH, "equal within 3.0"), 6.0),
)
Claim = tuple[str, str, str, str]  # row, than, column, direction
Levels = dict[tuple[str, str], float]  # by row and column


def claims() -> list[Claim]:
    """Returns the hypotheses of params.yaml."""
    rows = params.load("params.yaml").ablations
    return [(row, e.than, column, e.direction) for row in rows for e in rows[row].expects for column in e.columns]


def levels_at_the_edge(known: list[Claim], planted: Claim | None = None, difference: float = 0.0) -> Levels:
    """Returns levels at which each difference lies on the edge of what is expected, apart from the planted one.

    Where a row has two hypotheses about a column, the first decides.
    """
    levels: Levels = {}
    for claim in ([planted] if planted else []) + known:
        row, than, column, direction = claim
        edge = difference if claim == planted else max(bound for bound in region_of(direction) if math.isfinite(bound))
        levels.setdefault((than, column), 0.0)
        levels.setdefault((row, column), levels[than, column] + edge)
    return levels


def random_table(levels: Levels, seeds: int, generator: np.random.Generator) -> dict[tuple[str, str], np.ndarray]:
    """Returns the figures (seeds,) of each row and column."""
    of_seed = generator.normal(0, SEED_SD, seeds)
    of_run = {row: generator.normal(0, RUN_SD * math.sqrt(0.5), seeds) for row in dict.fromkeys(r for r, _ in levels)}
    return {
        key: level + of_seed + of_run[key[0]] + generator.normal(0, RUN_SD * math.sqrt(0.5), seeds)
        for key, level in levels.items()
    }


def judged(known: list[Claim], figures: dict[tuple[str, str], np.ndarray]) -> list[Verdict]:
    """Judges a table."""
    return decide([judge(figures[row, column], figures[than, column], how) for row, than, column, how in known])


def difference_of(claim: Claim, levels: Levels) -> float:
    """Returns the true difference."""
    row, than, column, _ = claim
    return levels[row, column] - levels[than, column]


def wrong_verdicts(known: list[Claim], tables: int) -> None:
    """Prints in how many tables without any effect a verdict is wrong."""
    levels, generator = levels_at_the_edge(known), np.random.default_rng(0)
    true = [difference_of(claim, levels) for claim in known]
    regions = [region_of(claim[3]) for claim in known]
    assert not any(low < value < high for value, (low, high) in zip(true, regions, strict=True))
    wrong = {SUPPORTED: 0, CONTRADICTED: 0}
    for _ in range(tables):
        words = [verdict.word for verdict in judged(known, random_table(levels, SEEDS, generator))]
        wrong[SUPPORTED] += SUPPORTED in words
        wrong[CONTRADICTED] += any(
            word == CONTRADICTED and low <= value <= high
            for word, value, (low, high) in zip(words, true, regions, strict=True)
        )
    error = math.sqrt(ERROR_RATE * (1 - ERROR_RATE) / tables)
    for word, count in wrong.items():
        click.echo(f"no effect, {SEEDS} seeds: {word} by mistake in {count} of {tables} tables ({count / tables:.1%})")
        assert count / tables <= ERROR_RATE + 3 * error, word


def printed(known: list[Claim], place: int, levels: Levels) -> Verdict:
    """Returns the verdict of a table of five seeds whose mean differences and deviations are the true ones."""
    pattern = np.arange(SEEDS) - np.mean(np.arange(SEEDS))
    pattern *= DIFFERENCE_SD / pattern.std(ddof=1)
    zero = np.zeros(SEEDS)
    return decide([judge(difference_of(claim, levels) + pattern, zero, claim[3]) for claim in known])[place]


def planted_effect(known: list[Claim], planted: Claim, difference: float, tables: int) -> None:
    """Prints how many tables decide a hypothesis with the seeds that its verdict asks for."""
    levels, generator = levels_at_the_edge(known, planted, difference), np.random.default_rng(1)
    place, (low, high) = known.index(planted), region_of(planted[3])
    word = SUPPORTED if low < difference < high else CONTRADICTED
    plan = printed(known, place, levels)
    row, than, column, direction = planted
    name = f"{row} {direction} {than} in {column}, true difference {difference:+g} (deviation {DIFFERENCE_SD:.1f})"
    if plan.goal is None or plan.level is None or plan.seeds_needed is None:
        click.echo(f"{name}: {plan.word} with {SEEDS} seeds")
        return
    found = sum(
        judged(known, random_table(levels, plan.seeds_needed, generator))[place].word == word for _ in range(tables)
    )
    expected = power(plan.seeds_needed, difference, DIFFERENCE_SD, plan.goal, plan.level)
    click.echo(
        f"{name}: {plan.seeds_needed} seeds (p {plan.level:.2g}) make it {word} in {found} of {tables} tables "
        f"({found / tables:.1%}; by the formula at least {expected:.1%})"
    )
    assert found / tables >= POWER - 3 * math.sqrt(POWER * (1 - POWER) / tables), name


def from_random_tables(known: list[Claim], planted: Claim, difference: float, tables: int) -> None:
    """Prints what the number of seeds is worth if it comes from a random table of five seeds."""
    levels, generator = levels_at_the_edge(known, planted, difference), np.random.default_rng(2)
    place, numbers, reached = known.index(planted), [], []
    for _ in range(tables):
        plan = judged(known, random_table(levels, SEEDS, generator))[place]
        if plan.level is not None and plan.seeds_needed is not None and plan.goal == region_of(planted[3]):
            numbers.append(plan.seeds_needed)
            reached.append(power(plan.seeds_needed, difference, DIFFERENCE_SD, plan.goal, plan.level))
    low, middle, high = np.percentile(numbers, (10, 50, 90))
    click.echo(
        f"{planted[0]} {planted[3]} {planted[1]}, {difference:+g}: of {tables} tables of {SEEDS} seeds {len(numbers)} "
        f"ask for seeds to support it: {middle:.0f} in the median ({low:.0f} to {high:.0f} in 80 % of them), which "
        f"reach 80 % power in {np.mean(np.array(reached) >= POWER):.0%} of cases and {np.mean(reached):.0%} on average"
    )


@click.command()
@click.option("--tables", default=1000, show_default=True, help="Simulated tables of each kind.")
def main(tables: int) -> None:
    """Simulates tables and judges them."""
    known = claims()
    click.echo(f"{len(known)} hypotheses of params.yaml")
    wrong_verdicts(known, tables)
    for planted, difference in PLANTED:
        planted_effect(known, planted, difference, tables)
    for planted, difference in PLANTED[:2]:
        from_random_tables(known, planted, difference, tables)


if __name__ == "__main__":
    main()
