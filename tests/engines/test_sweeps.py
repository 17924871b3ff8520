"""Sweeps in both engines: rows that are there already are not trained again, and a new value trains itself alone."""

from engine_project import Project, row_of

SWEEP = {"key": "objective.mask_video", "values": [0.5, 0.85], "of": ["xkd"]}  # 0.85 is the miniature's own value


def test_a_value_more_trains_that_value_only_in_either_engine(tmp_path):
    project = Project(tmp_path / "project", standins=True)
    settings = project.settings() | {"sweeps": {"mask": SWEEP}}
    project.write(settings)
    everything = [*row_of("ae"), *row_of("xkd", finetune=True), *row_of("xkd_mask_0_5")]
    assert project.run("dvc") == sorted(["download", "prepare", *everything, "table"])
    assert "sweep@mask" in (project.root / "dvc.lock").read_text()
    assert project.planned() == []
    settings["sweeps"]["mask"] = {**SWEEP, "values": [0.5, 0.7, 0.85]}
    project.write(settings)
    assert project.planned() == sorted([*row_of("xkd_mask_0_7"), "table"])
    assert project.run("dvc") == sorted([*row_of("xkd_mask_0_7"), "table"])
    settings["sweeps"] |= {"other": {**SWEEP, "values": [0.7, 0.9]}}
    project.write(settings)
    added = row_of("xkd_other_0_9")
    assert project.planned() == sorted([*added, "table"])
    done = project.snakemake("sweep_other")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.planned() == ["table"]
    settings["sweeps"] = {}
    project.write(settings)
    assert project.planned() == ["table"], "rows that are no longer asked for stay on the disk and leave the table"
