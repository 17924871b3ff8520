"""Write-protected runs, and results that are kept with new code (docs/long-runs.md). Stages are stand-ins."""

import os
import shutil

import pytest
from engine_project import SNAKEMAKE, Project

# The system lets root write everything, unless it is told not to.
AS_A_USER = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
ROW = ["evaluate xkd seed0 linear", "table"]


class OfAUser(Project):
    def call(self, *command, **env):
        return super().call(*AS_A_USER, *command, **env)

    def snakemake(self, *arguments, **env):
        return self.call(*SNAKEMAKE, *arguments, **env)


@pytest.mark.skipif(bool(AS_A_USER) and not shutil.which("setpriv"), reason="root may write everything")
def test_new_code_trains_no_protected_run_again_and_may_be_accepted(tmp_path):
    project = OfAUser(tmp_path / "project", standins=True)
    settings = project.settings()
    settings |= {"seeds": [0], "ablations": {"xkd": settings["ablations"]["xkd"]}, "tasks": {"linear": {}}}
    settings["tasks"]["linear"]["protocol"] = "linear"
    project.write(settings | {"report": {"baseline": "xkd"}, "resources": {"pretrain": {"protect": True}}})
    assert "pretrain xkd 0" in project.run("snakemake")
    run = project.root / "runs" / "miniature" / "xkd" / "seed0"
    weights = run / "encoders" / "video_student" / "model.safetensors"
    assert not weights.stat().st_mode & 0o222
    trained = weights.read_text()

    project.edit("xkd/objectives/alignment.py", "import torch\n", "import colorsys\nimport torch\n")
    refused = project.snakemake()
    assert refused.returncode != 0
    assert "Write-protected output files for rule pretrain" in refused.stdout + refused.stderr
    assert "seed0/metrics.json" in refused.stdout + refused.stderr

    assert project.call("chmod", "-R", "u+w", "runs").returncode == 0
    assert project.snakemake("--touch", "--until", "pretrain").returncode == 0
    assert not weights.stat().st_mode & 0o222, "protected again"
    assert project.planned() == ROW, "new code trains nothing, and evaluates what is there"
    assert project.snakemake("--touch").returncode == 0
    assert project.planned() == [], "all results were accepted"
    assert weights.read_text() == trained
