"""Stage `schema`: prints the JSON schema of the settings, or writes it to a file."""

from __future__ import annotations

import json
from pathlib import Path

from xkd import params
from xkd.files import check_output, read_json, write_json


def run(out: Path | None, force: bool) -> None:
    """Prints the schema, or writes it to `out`; replaces another file of that name only with `force`.

    Raises:
        UserError: `out` is a file that is not a schema of the settings, and `force` is false.
    """
    schema = params.schema()
    if out is None:
        print(json.dumps(schema, indent=2))
        return
    check_output(out, [], force, ours=_title(out) == schema["title"])
    write_json(out, schema)


def _title(path: Path) -> str | None:
    try:
        title: str | None = read_json(path).get("title")
        return title
    except (OSError, ValueError):
        return None
