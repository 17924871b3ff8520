"""One set of versions, whichever way the environment is made."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines)
    return {_canonical(name): version for name, version in (line.split("==") for line in lines)}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_direct_dependencies_are_pinned_as_in_the_constraints():
    constraints = _constraints()
    extras = [one for extra in ("dev", "hub", "onnx", "peers") for one in PROJECT["optional-dependencies"][extra]]
    for requirement in [*PROJECT["dependencies"], *extras]:
        if requirement.startswith("xkd["):
            continue
        name, version = requirement.split("==")
        assert constraints[_canonical(name)] == version


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == sorted(PROJECT["dependencies"])


def test_no_host_names_or_paths():
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile"):
        assert not re.search(r"https?://(?!127\.0\.0\.1)|index-url|file://|/opt/|/root/", (ROOT / name).read_text()), (
            name
        )
