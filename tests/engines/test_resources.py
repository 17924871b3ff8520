"""What jobs ask for, and how many processes pretraining starts. Stages are stand-ins."""

import re
import shutil

import pytest
from engine_project import ROOT, Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("resources") / "project", standins=True)


def _asked(project, resources: dict) -> tuple[dict, str]:
    """Resources and command of a pretraining, from a dry run."""
    return _jobs(project, resources, "ablation_ae")["pretrain"]


def _jobs(project, resources: dict, target: str) -> dict[str, tuple[dict, str]]:
    """Resources and command of the first job of each stage and task, from a dry run."""
    project.write(project.settings() | {"resources": resources})
    done = project.snakemake("--dry-run", "--printshellcmds", "--cores", "4", "--", target)
    text, jobs = done.stdout + done.stderr, {}
    assert done.returncode == 0, text
    for job in text.split("\nrule ")[1:]:
        asked = dict(entry.split("=", 1) for entry in re.search(r"resources: (.*)", job).group(1).split(", "))
        if command := re.search(r"Shell command: (.*-m xkd (\w+).*)", job):
            task = re.search(r"\btask=(\w+)", job)
            jobs.setdefault(task.group(1) if task else command.group(2), (asked, command.group(1)))
    return jobs


def test_a_lone_process_is_started_as_by_hand(project):
    resources, command = _asked(project, {"pretrain": {"cpus": 3, "memory_gb": 5.5, "runtime": 90}})
    assert (resources["nodes"], resources["cpus_per_task"], resources["mem_mb"]) == ("1", "3", "5500")
    assert resources["runtime"] == "90"
    assert "gpu" not in resources
    assert "mpi" not in resources
    assert command.startswith("exec python -m xkd pretrain --manifest ")


def test_a_protocol_asks_for_its_own_and_starts_its_own_processes(project):
    asked = {"evaluate": {"cpus": 2, "runtime": 30}, "protocols": {"finetune": {"gpus": 2, "cpus": 4}}}
    jobs = _jobs(project, asked, "ablation_xkd")
    resources, command = jobs["linear"]
    assert (resources["cpus_per_task"], resources["runtime"], "gpu" in resources) == ("2", "30", False)
    assert command.startswith("exec python -m xkd evaluate --manifest ")
    resources, command = jobs["finetune"]
    assert (resources["cpus_per_task"], resources["runtime"], resources["gpu"]) == ("4", "30", "2")
    assert command.startswith("OMP_NUM_THREADS=2 exec torchrun --standalone --nproc-per-node 2 -m xkd evaluate ")


def test_processes_of_several_nodes_meet_on_the_first(project):
    resources, command = _asked(project, {"pretrain": {"nodes": 2, "gpus": 2, "cpus": 8}})
    assert (resources["nodes"], resources["tasks"], resources["gpu"], resources["gres"]) == ("2", "2", "4", "gpu:2")
    assert "mpi" in resources
    assert (
        "exec srun --nodes 2 --ntasks-per-node 1 --cpus-per-task 8 --kill-on-bad-exit torchrun --nnodes 2 " in command
    )
    assert "--nproc-per-node 2" in command
    assert '--rdzv-endpoint "$(hostname):' in command


def test_processes_are_started(project):
    project.write(project.settings() | {"seeds": [0], "resources": {"pretrain": {"processes": 2, "cpus": 2}}})
    done = project.snakemake("--", "runs/miniature/ae/seed0/metrics.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.root / "executed.txt").read_text().splitlines().count("pretrain ae 0") == 2


def test_each_gpu_of_the_papers_node_gets_a_process(project):
    for file in (ROOT / "params.yaml", *(ROOT / "workflow" / "presets").glob("*.yaml")):
        text = file.read_text().replace("../../params.yaml", "base.yaml")
        (project.root / ("base.yaml" if file.name == "params.yaml" else file.name)).write_text(text)
    done = project.snakemake("--dry-run", "--", "ablation_xkd", XKD_PARAMS="paper.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"nodes=1, cpus_per_task=64, .*gpu=8, launcher=OMP_NUM_THREADS=8 exec torchrun", done.stdout + done.stderr
    )


def test_features_get_a_job_of_their_own_where_it_has_resources(project):
    tasks = {"linear": {"protocol": "linear"}, "finetune": {"protocol": "finetune"}}
    settings = project.settings() | {"seeds": [0], "tasks": tasks}
    evaluations = ["evaluate ae seed0 finetune", "evaluate ae seed0 linear"]
    wanted = ["--", "ablation_ae"]
    for asked, extra in (({"features": {"gpus": 1, "cpus": 2}}, ["features ae seed0 linear"]), ({}, [])):
        project.write(settings | {"resources": asked})
        shutil.rmtree(project.root / "evals", ignore_errors=True)
        (project.root / "executed.txt").unlink(missing_ok=True)
        done = project.snakemake(*wanted)
        assert done.returncode == 0, done.stdout + done.stderr
        executed = (project.root / "executed.txt").read_text().splitlines()
        assert sorted(name for name in executed if name.startswith(("evaluate", "features"))) == evaluations + extra
        if extra:
            assert executed.index(extra[0]) < executed.index("evaluate ae seed0 linear")
            assert "gpu=1" in done.stdout + done.stderr


def test_all_data_are_made_before_the_first_training(tmp_path):
    """Those of evaluations too, though four trainings could start: the data of pretraining are there."""
    project = Project(tmp_path / "project", standins=True)
    settings = project.settings()
    settings["datasets"]["labelled"] = settings["datasets"]["miniature"]
    settings["ablations"] = {"ae": settings["ablations"]["ae"]}
    settings |= {"seeds": [0, 1, 2, 3], "resources": {"download": {"cpus": 4}, "prepare": {"cpus": 4}}}
    project.write(settings | {"tasks": {"linear": {"protocol": "linear", "dataset": "labelled"}}})
    for target in ("data/miniature/manifest.csv", "all"):
        done = project.snakemake("--cores", "4", "--", target)
        assert done.returncode == 0, done.stdout + done.stderr
    jobs = [line.split()[0] for line in (project.root / "executed.txt").read_text().splitlines()]
    assert jobs[:5] == ["download", "prepare", "download", "prepare", "pretrain"]
