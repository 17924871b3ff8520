"""The example of docs/plugins.md, copied from the page, and an encoder of a plugin, as rows of the miniature."""

import sys

import pandas as pd
import pytest
import yaml
from engine_project import ROOT, row_of

sys.path.insert(0, str(ROOT / "tests"))
from docs_blocks import blocks_of

BLOCKS = blocks_of(ROOT / "docs" / "plugins.md", ROOT)
(PLUGIN,) = (block for block in BLOCKS if block.file)
PEERS = """
from xkd import registry
from xkd.encoders.peer import Peer


@registry.peers.register("mean_colour")
class MeanColour(Peer):
    modalities, licence = ("video",), "MIT"

    def forward(self, clips, rate):
        return clips.float().mean((1, 2, 3))
"""
PEER = {
    "hypothesis": "The mean colour, which nothing has trained.",
    "changes": {"training": {"mode": "none", "peers": {"video": {"adapter": "mean_colour"}}}},
}
(ROW,) = (yaml.safe_load(block.text) for block in BLOCKS if block.kind == "settings" and "ablations" in block.text)


@pytest.fixture(scope="module")
def project(by_snakemake):
    """The finished miniature with the plugin and its row, which was planned and run."""
    before = by_snakemake.settings()
    path = by_snakemake.root / PLUGIN.file
    path.parent.mkdir()
    path.write_text(PLUGIN.text)
    (path.parent / "colour.py").write_text(PEERS)
    added = {"plugins": [*ROW["plugins"], "lab/colour.py"], "ablations": ROW["ablations"] | {"colour": PEER}}
    by_snakemake.write(before | added | {"ablations": before["ablations"] | added["ablations"]})
    planned = [*row_of("xkd_barlow", seeds=[0]), *row_of("colour", seeds=[0]), "table"]
    assert by_snakemake.planned() == sorted(planned)
    done = by_snakemake.snakemake(XKD_TRACKING="on")
    assert done.returncode == 0, done.stdout + done.stderr
    return by_snakemake


def test_the_row_is_in_the_table_the_report_and_mlflow_as_ours_are(project):
    from mlflow import MlflowClient

    table = pd.read_csv(project.root / "results" / "table.csv").set_index("ablation")
    assert table.loc["xkd_barlow", ["student.video.linear.mean", "student.both.linear.mean"]].notna().all()
    page = (project.root / "results" / "report.html").read_text()
    assert "xkd_barlow" in page
    assert "Barlow Twins, students" in page
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    metrics = client.get_run(table.loc["xkd_barlow", "mlflow_runs"]).data.metrics
    assert {"barlow", "loss", "student.video.linear"} <= set(metrics)


def test_an_encoder_of_a_plugin_is_a_row_of_the_table_as_ours_are(project):
    table = pd.read_csv(project.root / "results" / "table.csv").set_index("ablation")
    assert table.loc["colour", ["student.video.linear.mean", "student.video.knn.mean"]].notna().all()
    assert table.loc["colour", ["student.audio.linear.mean", "student.both.linear.mean"]].isna().all()
    said = "Row `colour`: encoders that were not trained here. video: mean_colour of colour.py (licence: MIT)."
    assert said in (project.root / "results" / "table.md").read_text()


def test_the_term_is_trained(project):
    steps = pd.read_csv(project.root / "runs/miniature/xkd_barlow/seed0/steps.csv")
    assert steps["barlow"].notna().all()
    assert steps["barlow"].std() > 0
    assert steps["alignment_students"].isna().all()
    others = pd.read_csv(project.root / "runs/miniature/xkd/seed0/steps.csv")
    assert "barlow" not in others


def test_a_mistyped_setting_of_the_plugin_is_one_line_with_a_suggestion(project):
    settings = project.settings()
    settings["ablations"]["xkd_barlow"]["changes"]["objective"]["barlow"] = {"redundency": 1}
    (project.root / "typo.yaml").write_text(yaml.safe_dump(settings))
    done = project.snakemake(XKD_PARAMS="typo.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "xkd: error: typo.yaml: ablations.xkd_barlow.changes: unknown key 'objective.barlow.redundency'; "
        "did you mean 'redundancy'?"
    )
