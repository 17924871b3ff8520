"""docs/reliability.md names, for each promise, a test that exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RULES = [
    line
    for line in (ROOT / "docs" / "reliability.md").read_text().partition("## Bad inputs tried")[0].splitlines()
    if line.startswith("|") and not line.startswith(("| rule", "| ---"))
]


@cache
def functions(file):
    return {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("line", RULES)
def test_each_rule_names_a_test_that_exists(line):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
    assert named, "name the test as `tests/file.py::test_name`"
    for file, test in named:
        assert test in functions(file)
