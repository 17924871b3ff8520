"""Validates settings, and explains in one line what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from xkd.errors import UserError
from xkd.registry import suggest
from xkd.settings.base import Open, Settings

Model = TypeVar("Model", bound=Settings)
LONGEST_SHOWN = 100


def validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Returns the settings that `values` describe.

    Raises:
        UserError: they are not valid; `where` begins the message.
    """
    try:
        # As JSON, since strictness there still takes lists for tuples: no "3" for 3, no 1 for true.
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = error.errors()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{where}: {_explain(model, problems[0])}{more}") from None


def _explain(model: type[Settings], problem: Mapping[str, Any], above: tuple[str, ...] = ()) -> str:
    location = [*above, *(str(part) for part in problem["loc"] if part != "[key]")]
    context = problem.get("ctx", {})
    if problem["type"] == "unknown_key":
        location.append(context["key"])
    if problem["type"] == "plugin":
        return _explain(context["model"], context["problem"], (*location, context["key"]))
    key = ".".join(location)
    if problem["type"] in ("extra_forbidden", "unknown_key"):
        return f"unknown key '{key}'{suggest(location[-1], _keys_beside(model, location[len(above) : -1]))}"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unknown_name":
        return f"'{key}': {message}"
    if key == "results" and problem["type"] == "string_pattern_mismatch":
        message = "use letters, digits and . _ - with / between folders, none of which begins with a dot"
    return f"'{key}': {message}, found {shown(problem['input'])}" if key else message


def shown(value: object) -> str:
    """Returns a value as an error message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _keys_beside(model: type[Settings], location: list[str]) -> list[str]:
    """Names allowed in the group at `location`, found by walking the models."""
    for part in location:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else model
        arguments = getattr(annotation, "__args__", ())
        candidates = [a for a in (annotation, *arguments) if isinstance(a, type) and issubclass(a, Settings)]
        model = candidates[0] if candidates else model
    plugged = model.REGISTRY.plugged if issubclass(model, Open) else ()
    return [*model.model_fields, *plugged]
