"""What may import what: folders in layers, and few modules that are needed everywhere."""

import subprocess
import sys
from collections import defaultdict

import pytest

from xkd import fingerprint

LAYERS = (
    *("tracking", "objectives", "models", "data", "encoders", "training"),
    *("downstream", "plan", "report", "show", "stages"),
)
EVERYWHERE = {
    "xkd.errors",
    "xkd.files",
    "xkd.params",
    "xkd.runs",
    "xkd.settings",
}  # params reads what settings describes


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Modules of the package that each module imports, at its top or later."""
    root = fingerprint.PACKAGE
    names = [".".join(["xkd", *path.relative_to(root).with_suffix("").parts]) for path in root.rglob("*.py")]
    names = {name.removesuffix(".__init__") for name in names} - {"xkd"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "WATCHERS", set())
        return {name: set(fingerprint._imports(name)) for name in names}


@pytest.fixture(scope="module")
def folders() -> set[str]:
    return {path.parent.name for path in fingerprint.PACKAGE.glob("*/__init__.py")} - {
        "settings",
        "runs",
    }  # beside the folders


def _part(module: str) -> str:
    """The folder or the single module below xkd/ that holds a module."""
    return module.split(".")[1]


def _graph(imports) -> dict[str, set[str]]:
    graph = defaultdict(set)
    for module, imported in imports.items():
        graph[_part(module)] |= {_part(name) for name in imported} - {_part(module)}
    return graph


def test_folders_import_only_those_before_them(imports, folders):
    """So there is no cycle. The order is that of docs/architecture.md."""
    assert set(LAYERS) == folders
    graph = _graph(imports)
    for place, folder in enumerate(LAYERS):
        assert graph[folder] & folders <= set(LAYERS[:place]), folder


def test_modules_beside_the_folders_know_none_of_them(imports, folders):
    for part, imported in _graph(imports).items():
        if part not in folders:
            assert not imported & folders, part


def test_only_settings_errors_and_files_are_needed_everywhere(imports, folders):
    users = defaultdict(set)
    for module, imported in imports.items():
        for name in imported - {f"xkd.{folder}" for folder in folders}:
            users[name].add(_part(module))
    everywhere = {name for name, parts in users.items() if len(parts & folders - {_part(name)}) > len(folders) / 2}
    assert everywhere <= EVERYWHERE


def test_the_science_needs_no_engine_no_decoder_and_no_settings():
    """Models, objectives and the training step stand alone, e.g. in somebody else's project."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('decord', 'dvc', 'mlflow', 'pydantic', 'snakemake')));"
        "import xkd.models.networks, xkd.training.objective, xkd.training.step"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
