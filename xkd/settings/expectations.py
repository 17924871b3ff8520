"""What a row of the table is expected to show; `xkd.report.verdicts` judges it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from xkd import registry
from xkd.errors import UserError
from xkd.registry import suggest
from xkd.settings.base import MODALITY_NAMES, Name, Settings

if TYPE_CHECKING:
    from xkd.recipe import Recipe
    from xkd.settings.params import Params

WITHIN = "equal within "


def _check_direction(text: str) -> str:
    margin = text.removeprefix(WITHIN)
    number = margin.replace(".", "", 1)
    if text in ("above", "below") or (margin != text and number.isdecimal() and 0 < float(margin) <= 100):
        return text
    raise PydanticCustomError("direction", "use above, below, or 'equal within 1.0' (points, above 0)")


class Expectation(Settings):
    """What a hypothesis says of a row beside another: one test for each column."""

    than: Name = Field(description="the row to compare with, seed by seed")
    columns: tuple[Annotated[str, Field(max_length=300)], ...] = Field(
        min_length=1, max_length=100, description="columns of the table, such as student.video.linear"
    )
    direction: Annotated[str, AfterValidator(_check_direction), Field(max_length=100)] = Field(
        description="of the difference to that row: above, below, or 'equal within 1.0' (points)"
    )
    verdict: Literal["supported", "contradicted", "undecided"] | None = Field(
        None, description="the verdict on record for all of these columns; `xkd table --strict` fails on another"
    )


def columns_of(recipe: Recipe, tasks: Iterable[str], params: Params) -> set[str]:
    """Returns the columns that these tasks can give a row, as far as its settings tell; evaluation may give fewer."""
    owners = ("student", "teacher") if recipe.has_teachers or recipe.training.weights else ("student",)
    found = set()
    for name in tasks:
        task = params.tasks[name]
        seen = [m for m in task.modalities if m in (recipe.modalities or MODALITY_NAMES)]
        words = [*seen, "both"] if len(seen) > 1 else seen
        methods = registry.protocols[task.protocol].methods_of(name, task.protocol)
        found |= {".".join(parts) for parts in product(owners, words, methods)}
    return found


def applicable(params: Params, columns: Mapping[str, set[str]], own: Collection[str], path: object) -> Params:
    """Returns the settings without expectations that the table cannot judge.

    These come from a file that `path` extends, and `path` has taken away a row or a task.

    Args:
        columns: what the tasks can give each row.
        own: rows whose expectations stand in the file itself; these must all be possible.

    Raises:
        UserError: one of them names an unknown row, a column that the two rows cannot both have, or a test twice.
    """
    rows = {}
    for name, row in params.ablations.items():
        if name in own:
            _check(row.expects, name, columns, f"{path}: ablations.{name}.expects")
        kept = []
        for one in row.expects:
            possible = columns[name] & columns.get(one.than, set())
            if those := tuple(column for column in one.columns if column in possible):
                kept.append(one.model_copy(update={"columns": those}))
        rows[name] = row.model_copy(update={"expects": tuple(kept)})
    return params.model_copy(update={"ablations": rows})


def _check(expects: Iterable[Expectation], name: str, columns: Mapping[str, set[str]], where: str) -> None:
    """Refuses expectations that no table of these settings can judge, and tests that would count twice."""
    seen: set[tuple[str, ...]] = set()
    for one in expects:
        if one.than not in columns:
            raise UserError(f"{where}: no ablation '{one.than}'{suggest(one.than, columns)}")
        if one.than == name:
            raise UserError(f"{where}: '{name}' is compared with itself; name another row in 'than'")
        for column in one.columns:
            possible = columns[name] & columns[one.than]
            if column not in possible:
                hint = suggest(column, possible)
                raise UserError(f"{where}: {name} and {one.than} do not both have '{column}'{hint}")
            test = (one.than, column, one.direction)
            if test in seen:
                raise UserError(f"{where}: '{column}' {one.direction} {one.than} is listed twice")
            seen.add(test)
