"""Reads a YAML file of settings; refuses ambiguous or hostile content and names its line.

Scalars are those of YAML 1.2, as DVC reads them: 1e-3 is a number; yes, no, on, off, 12:30 and dates are text.
"""

from __future__ import annotations

import math
import re
import stat
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from xkd.errors import UserError

MOST_BYTES = 500_000
MOST_VALUES = 50_000  # an alias counts each time it is used
DEEPEST = 40
LONGEST_INTEGER, LONGEST_KEY = 18, 100
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the mapping in a file.

    Raises:
        UserError: not a file of UTF-8 text, not YAML, not a mapping, or ambiguous.
    """
    try:
        values = yaml.load(_text(path), _Loader)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); run from the project folder or pass --params"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except _Refused as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        raise UserError(f"{path}: expected settings (key: value lines), found an empty file")
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings (key: value lines), found {type(values).__name__}")
    return values


def _text(path: Path) -> str:
    mode = path.stat().st_mode  # a null byte in the name is a ValueError
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}; name a settings file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: longer than {MOST_BYTES} bytes; name a settings file")
    return content.decode("utf-8-sig")


class _Refused(yaml.YAMLError):
    """Settings contain something that YAML allows and settings do not."""

    def __init__(self, problem: str, place: Node | yaml.Event) -> None:
        mark = place.start_mark
        super().__init__(f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the scalars of YAML 1.2; refuses repeated keys, tags and aliases that multiply values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML declares it so)

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.sizes: dict[Node, int] = {}
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Composes a node and its children, then checks the node's size and keys."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Refused(f"more than {DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        assert node is not None  # only a document can be empty
        if alias and node not in self.sizes:
            raise _Refused("an alias is inside the value that it names", event)
        if not alias and event.tag:
            raise _Refused(f"the tag {event.tag} is not allowed in settings; remove it", event)
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        self.sizes[node] = 1 + (0 if isinstance(node, ScalarNode) else sum(self.sizes[part] for part in parts))
        if self.sizes[node] > MOST_VALUES:
            raise _Refused(f"more than {MOST_VALUES} values, aliases included", event)
        if isinstance(node, MappingNode) and not alias:
            _check_keys(node)
        return node

    def integer(self, node: ScalarNode) -> int:
        if len(node.value.lstrip("+-")) > LONGEST_INTEGER:
            raise _Refused(f"{node.value[:LONGEST_INTEGER]}... is too large a number", node)
        return int(node.value)

    def number(self, node: ScalarNode) -> float:
        value = float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise _Refused(f"{node.value[:LONGEST_INTEGER]} is not a finite number", node)
        return value

    def text(self, node: ScalarNode) -> str:
        value = str(node.value)
        if found := UNPRINTABLE.search(value):
            raise _Refused(f"a control character in a text value (U+{ord(found[0]):04X})", node)
        return value


def _check_keys(node: MappingNode) -> None:
    """Checks that keys are text and not repeated; keys that `<<` brings in may be overridden."""
    first: dict[str, Node] = {}
    for key, _ in node.value:
        if key.tag not in (TEXT, MERGE):
            shown = key.value if isinstance(key, ScalarNode) else "this"
            raise _Refused(f"the key {shown} is not text; write it in quotes", key)
        if len(key.value) > LONGEST_KEY:
            raise _Refused(f"a key of {len(key.value)} letters; at most {LONGEST_KEY} are allowed", key)
        if not key.value.isprintable():
            raise _Refused(f"the key {key.value!r} contains invisible characters", key)
        if key.value in first:
            line = first[key.value].start_mark.line + 1
            raise _Refused(f"the key '{key.value}' appears again, first in line {line}; keep one of them", key)
        first[key.value] = key


_SCALARS: dict[str, tuple[str, str]] = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": ("~|null|Null|NULL|", "~nN\0"),
    "merge": ("<<", "<"),
}
for _name, (_pattern, _letters) in _SCALARS.items():
    _first = ["" if letter == "\0" else letter for letter in _letters]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)
_Loader.add_constructor(TEXT, _Loader.text)
