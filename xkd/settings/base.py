"""Base class of all groups of settings, and the bounds that they share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from xkd.registry import Registry, suggest

# Upper bounds stand far above what anybody uses: beyond them lies a typing error or an attempt to break something.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)]
Place = Annotated[
    str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f{}]+$")
]  # Snakemake fills in what stands in braces
Fold = Annotated[str, Field(max_length=100, pattern=r"^[^\s:]+$")]
# It names outputs of Snakemake and of DVC, and stands in commands. No part begins with a dot: not .. either.
Folder = Annotated[
    str, Field(max_length=500, pattern=r"^/?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")
]
Text = Annotated[str, Field(max_length=2000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Size = Annotated[int, Field(ge=1, le=20_000)]
Few = Annotated[int, Field(ge=0, le=1_000)]
Depth = Annotated[int, Field(ge=1, le=1_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Strength = Annotated[float, Field(ge=0, le=100)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Epochs = Annotated[float, Field(ge=0, le=1e6)]
Temperature = Annotated[float, Field(gt=0, le=1000)]
Owners = Annotated[tuple[Literal["student", "teacher"], ...], Field(min_length=1, max_length=2)]
InverseStrengths = Annotated[tuple[Annotated[float, Field(gt=0, le=1e12)], ...], Field(min_length=1, max_length=1000)]
Hue = Annotated[float, Field(ge=0, le=0.5)]
MODALITY_NAMES = ("video", "audio")


class Settings(BaseModel):
    """Base of all groups: unknown keys are errors, numbers are finite, values never change after loading.

    Attributes:
        HOW: keys that say how a job is executed, and not what it computes: changing one refuses and repeats nothing.
    """

    HOW: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Known:
    """Annotates a text that must be a name of a registry, our own or a plugin's."""

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "examples": [*self.registry.own, *self.registry.reserved]}

    def _check(self, name: str) -> str:
        names = (*self.registry.names, *self.registry.reserved)
        if name not in names:
            raise PydanticCustomError(
                "unknown_name",
                "no {kind} {name}{hint}",
                {"kind": self.registry.kind, "name": repr(name[:100]), "hint": suggest(name, names)},
            )
        return name


class Open(Settings):
    """A group that also takes settings of plugins, each under the name that the plugin registered.

    A plain number sets `weight` alone.

    Attributes:
        REGISTRY: what may stand there.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": {"type": ["object", "number"]}})

    REGISTRY: ClassVar[Registry[Any]]

    @property
    def plugged(self) -> dict[str, Any]:
        """The settings of plugins in this group, by name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _plugins_validate_their_settings(self) -> Self:
        extra = self.model_extra or {}
        for name, values in extra.items():
            if name not in self.REGISTRY.plugged:
                raise PydanticCustomError("unknown_key", "unknown key", {"key": name})
            extra[name] = _validated(name, self.REGISTRY.plugged[name].Settings or Settings, values)
        return self


def _validated(name: str, model: type[Settings], values: Any) -> Settings:
    if isinstance(values, model):
        return values
    if isinstance(values, (int, float)) and not isinstance(values, bool) and "weight" in model.model_fields:
        values = {"weight": values}
    try:
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise PydanticCustomError(
            "plugin", "{problem}", {"key": name, "model": model, "problem": error.errors()[0]}
        ) from None


def plugin_files(settings: BaseModel) -> set[Path]:
    """Returns the plugin files whose names these settings use."""
    files: set[Path | None] = set()
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        files |= {known.registry.file(value) for known in field.metadata if isinstance(known, Known)}
        if isinstance(value, Settings):
            files |= plugin_files(value)
    if isinstance(settings, Open):
        files |= {settings.REGISTRY.file(name) for name in settings.plugged}
        files |= {file for values in settings.plugged.values() for file in plugin_files(values)}
    return {file for file in files if file}
