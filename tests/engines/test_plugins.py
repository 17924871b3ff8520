"""Plugins in both engines: a row of one's own runs, and an edit of a plugin reruns what uses it."""

import pytest
from engine_project import Project, row_of

PLUGIN = '''"""A term."""
from xkd import registry
from xkd.settings.objective import TermSettings


@registry.terms.register("barlow")
class Barlow:
    """It only has to be known here: the stages are stand-ins."""

    Settings = TermSettings
    needs_teachers = True
    scale = 1
'''
PROTOCOL = """
from xkd import registry
from xkd.settings import Settings


@registry.augmentations.register("noise")
class Noise:
    Settings, modalities, draws = Settings, ("audio",), 0
"""
PEER = """
from xkd import registry


@registry.peers.register("mine")
class Mine:
    modalities, width = ("video",), 1
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("plugins") / "project", standins=True)
    (project.root / "lab").mkdir()
    (project.root / "lab" / "barlow.py").write_text(PLUGIN)
    (project.root / "lab" / "noise.py").write_text(PROTOCOL)
    row = {"hypothesis": "Cross-correlation aligns.", "changes": {"objective": {"barlow": 0.5, "alignment": 0}}}
    noisy = {"hypothesis": "Noise helps.", "changes": {"views": {"audio_global": {"noise": {}}}}}
    (project.root / "lab" / "mine.py").write_text(PEER)
    (project.root / "lab" / "weights.bin").write_text("one")
    peers = {"video": {"adapter": "mine", "weights": "lab/weights.bin"}}
    mine = {"hypothesis": "Others.", "changes": {"training": {"mode": "none", "peers": peers}}}
    settings = project.settings()
    settings["ablations"] = {"ae": settings["ablations"]["ae"], "bt": row, "noisy": noisy, "mine": mine}
    settings["tasks"] = {"linear": {"protocol": "linear"}}
    project.write(settings | {"seeds": [0], "plugins": ["lab/barlow.py", "lab/noise.py", "lab/mine.py"]})
    executed = project.run("dvc")
    assert {*_row("bt"), *_row("noisy"), *_row("mine"), *_row("ae")} < set(executed)
    return project


def _row(ablation):
    return row_of(ablation, seeds=[0])


def test_a_plugin_that_did_not_change_reruns_nothing(project):
    assert project.planned() == []
    project.edit("lab/barlow.py", "A term.", "A cross-modal term.")
    assert project.planned() == []
    assert project.run("dvc") == []


def test_an_edit_reruns_the_rows_that_use_the_plugin_and_no_others(project):
    project.edit("lab/barlow.py", "scale = 1", "scale = 2")
    assert set(project.planned()) == {*_row("bt"), "table"}
    assert set(project.run("dvc")) == set(_row("bt"))  # the stand-ins write the same results: the table is left
    assert project.run("snakemake") == []
    project.edit("lab/noise.py", 'draws = Settings, ("audio",), 0', 'draws = Settings, ("audio",), 1')
    assert set(project.planned()) == {*_row("noisy"), "table"}
    assert set(project.run("snakemake")) == {*_row("noisy"), "table"}
    assert project.run("dvc") == []


def test_other_weights_or_code_of_an_encoder_of_others_rerun_its_row_alone(project):
    (project.root / "lab" / "weights.bin").write_text("two")
    assert set(project.planned()) == {*_row("mine"), "table"}
    assert set(project.run("snakemake")) >= {*_row("mine")}
    project.edit("lab/mine.py", '("video",), 1', '("video",), 2')
    assert set(project.planned()) == {*_row("mine"), "table"}


def test_a_broken_plugin_is_one_line(project):
    project.edit("lab/barlow.py", "from xkd import registry", "from xkd import registries")
    done = project.snakemake()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("xkd: error: plugins: lab/barlow.py: ImportError: ")
    project.edit("lab/barlow.py", "from xkd import registries", "from xkd import registry")
