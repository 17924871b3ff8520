"""Settings of sweeps: one setting, or two, that take several values in some rows of the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from xkd.settings.base import Name, Settings, Text

Key = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+$", max_length=200),
]
Values = Annotated[tuple[Any, ...], Field(min_length=1, max_length=100)]


class Sweep(Settings):
    """Rows that differ in the value of one setting, drawn as a curve, or of two, drawn as a heat map."""

    hypothesis: Text = Field("", description="what the sweep asks")
    key: Key | None = Field(None, description="setting that takes the values, e.g. objective.mask_video")
    values: Values | None = Field(None, description="of `key`; one that a row has already trains nothing")
    grid: Annotated[dict[Key, Values], Field(min_length=2, max_length=2)] | None = Field(
        None, description="instead of key and values: two settings with the values of each, in all combinations"
    )
    of: tuple[Name, ...] = Field(min_length=1, max_length=100, description="rows in which the setting takes the values")

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each setting: one setting, or two."""
        return self.grid or {str(self.key): self.values or ()}

    @model_validator(mode="after")
    def _one_or_two_settings(self) -> Sweep:
        given = (self.key is not None, self.values is not None, self.grid is not None)
        if given not in ((True, True, False), (False, False, True)):
            raise ValueError("give `key` and `values`, or `grid: {first.key: [...], second.key: [...]}`")
        for key, values in self.axes.items():
            texts = [json.dumps(value) for value in values]
            twice = next((text for text in texts if texts.count(text) > 1), None)
            if twice:
                raise ValueError(f"{key}: {twice} is listed twice")
        return self


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        sweep, of: the sweep, and the row that it changes.
        values: of each of its settings.
        row: the row of the table with these settings.
        added: the row is there for this point; otherwise the settings or an earlier sweep have it.
    """

    sweep: str
    of: str
    values: tuple[Any, ...]
    row: str
    added: bool
