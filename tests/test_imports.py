"""The package's folders form the layers that docs/architecture.md draws, and few modules are needed everywhere.

Imports are found by grimp, the library beneath import-linter. Import-linter takes layers from its own configuration
only, so they would stand there a second time.
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import grimp
import pytest
from docs_blocks import blocks_of

import xkd

ROOT = Path(__file__).parents[1]
PACKAGE = Path(xkd.__file__).parent
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"settings", "runs"}  # these stand beside them
EVERYWHERE = {
    "xkd.errors",
    "xkd.files",
    "xkd.params",
    "xkd.progress",
    "xkd.registry",
    "xkd.runs",
    "xkd.settings",
}  # params reads what settings describes


@pytest.fixture(scope="module")
def layers() -> list[set[str]]:
    """Reads the diagram, from top to bottom: a line is `folder | folder  # what they hold`."""
    (diagram,) = (b.text for b in blocks_of(ROOT / "docs" / "architecture.md", ROOT) if b.kind == "text")
    return [{name.strip() for name in line.split("#")[0].split("|")} for line in diagram.splitlines()]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Builds the graph of all imports, at the top of a module or later."""
    graph = grimp.build_graph("xkd", cache_dir=None)
    for offered in graph.find_modules_directly_imported_by("xkd"):  # load_encoder: for users, not for the package
        graph.remove_import(importer="xkd", imported=offered)
    return graph


def test_the_diagram_shows_every_folder_once(layers):
    assert sorted(name for layer in layers for name in layer) == sorted(FOLDERS)


def test_folders_import_only_those_below_them_in_the_diagram(graph, layers):
    beside = grimp.Layer(*(path.stem for path in PACKAGE.glob("[!_]*.py")), independent=False)
    upwards = graph.find_illegal_dependencies_for_layers([*layers, beside], containers={"xkd"})
    assert not upwards, [f"{found.importer} imports {found.imported}" for found in upwards]


def test_only_settings_errors_files_and_progress_are_needed_everywhere(graph):
    users = defaultdict(set)
    for module in graph.modules - {"xkd", *(f"xkd.{folder}" for folder in FOLDERS)}:
        importers = {name.split(".")[1] for name in graph.find_modules_that_directly_import(module) - {"xkd"}}
        users[module] = importers & FOLDERS - {module.split(".")[1]}
    assert {name for name, parts in users.items() if len(parts) > len(FOLDERS) / 2} <= EVERYWHERE


def test_the_science_needs_no_engine_no_decoder_and_no_settings():
    """Models, objectives and the training step stand alone, e.g. in somebody else's project."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('decord', 'dvc', 'mlflow', 'pydantic', 'snakemake')));"
        "import xkd.models.networks, xkd.training.objective, xkd.training.step"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jobs_load_no_library_that_they_do_not_use():
    """A table consists of a hundred jobs, and each of these libraries takes a second or more to load."""
    code = (
        "import sys, torch, xkd.stages.pretrain, xkd.tracking; from xkd.training.optimiser import make_optimiser;"
        "model = torch.nn.Linear(2, 2); optimiser = make_optimiser(model, 0.1, (0.9, 0.95), 0.0);"
        "model(torch.ones(1, 2)).sum().backward(); optimiser.step(); optimiser.zero_grad(); optimiser.state_dict();"
        "heavy = {'mlflow', 'torchvision', 'torch._dynamo', 'sklearn', 'scipy', 'matplotlib'};"
        "print('pretrain', sorted(heavy & set(sys.modules)));"
        "import xkd.stages.evaluate; print('evaluate', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["pretrain []", "evaluate ['scipy', 'sklearn']"]
