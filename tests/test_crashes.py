"""Every stage of the miniature is killed at its operations on files, and the next start ends as if nothing had been.

Here a stage is killed twice before it may end. `XKD_EVERY_CRASH=1 python -m pytest tests/test_crashes.py` kills
it once at each moment, which takes about ten minutes of one core.
"""

import importlib
import os
import signal
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch._dynamo  # noqa: F401 (once, for all forks)
import torchaudio  # noqa: F401
import yaml
from crash_harness import Project, differences, moments, tree
from crash_watch import Moment, little_space, no_space
from forks import code_of, fork

from xkd import fingerprint
from xkd.files import replacing, write_json
from xkd.report import style

MINIATURE = Path(__file__).parents[1] / "workflow" / "presets" / "miniature.yaml"
EVERY, KILLS = bool(os.environ.get("XKD_EVERY_CRASH")), 2
RUN, EVALUATIONS = "runs/miniature/xkd/seed0", "evals/miniature/xkd/seed0"
EVALUATE = f"evaluate --manifest data/miniature/manifest.csv --run {RUN}"
STAGES = {
    "download": "download --dataset miniature --out data/miniature/raw",
    "prepare": "prepare --raw data/miniature/raw/index.csv --out data/miniature",
    "pretrain": f"pretrain --manifest data/miniature/manifest.csv --ablation xkd --seed 0 --out {RUN}",
    "linear": f"{EVALUATE} --task linear --out {EVALUATIONS}/linear.json",
    "finetune": f"{EVALUATE} --task finetune --out {EVALUATIONS}/finetune.json",
    "embed": f"embed {RUN}/encoders/video_student data/miniature/raw/clips --output video.parquet --force",
    "table": "table --out results",
}


def settings() -> dict:
    """The miniature with one row, six clips and two steps of training, with a checkpoint at each."""
    values = yaml.safe_load(MINIATURE.read_text())
    values["seeds"], values["ablations"] = [0], {"xkd": values["ablations"]["xkd"]}
    values["datasets"]["miniature"] |= {"train_clips": 4, "test_clips": 2}
    values["training"] |= {"epochs": 1, "batch_size": 2, "checkpoint_minutes": 1e-6}
    values["evaluate"]["finetune"] |= {"epochs": 1, "batch_size": 2}
    values["report"]["baseline"] = "xkd"
    return values


def unpainted(figure, path, format=None):
    """Writes a file in place of a picture, which takes long to paint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a picture")
    plt.close(figure)
    return "a picture"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """All stages one after the other, undisturbed."""
    folder = tmp_path_factory.mktemp("crashes")
    found = Project(folder / "project", folder / "logs")
    found.root.mkdir()
    found.logs.mkdir()
    (found.root / "params.yaml").write_text(yaml.safe_dump(settings()))
    for stage in ("download", "prepare", "pretrain", "evaluate", "embed", "table"):  # once, for all forks
        importlib.import_module(f"xkd.stages.{stage}")
    for code in ("stages.pretrain", "stages.evaluate", "downstream.finetune", "data.loader", "downstream.store"):
        fingerprint.module(f"xkd.{code}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save_figure", unpainted)
        for name, command in STAGES.items():
            found.undisturbed(name, command.split())
        yield found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_at_any_moment_ends_like_an_undisturbed_one(project, stage):
    operations = project.operations[stage]
    trials = [[one] for one in moments(operations)] if EVERY else [moments(operations, KILLS, seed=len(stage))]
    for kills in trials:
        places = ", ".join(f"{one} ({operations[one.number]})" for one in kills)
        wrong = project.killed(stage, STAGES[stage].split(), kills)
        assert not wrong, f"{stage}, killed {places}: " + "; ".join(wrong)


@pytest.mark.parametrize(
    ("stage", "act"),
    [*((stage, no_space) for stage in (STAGES if EVERY else ["prepare"])), ("pretrain", little_space)],
)
def test_a_disk_that_is_full_from_any_moment_on_costs_nothing(project, stage, act):
    for moment in moments(project.operations[stage], None if EVERY else 1):
        wrong = project.full(stage, STAGES[stage].split(), moment, act)
        assert not wrong, f"{stage}, full {moment} ({project.operations[stage][moment.number]}): " + "; ".join(wrong)


@pytest.mark.parametrize("stage", ["download", "prepare", "pretrain"] if EVERY else ["prepare"])
def test_a_second_process_at_any_moment_of_a_stage_harms_nothing(project, stage):
    for moment in moments(project.operations[stage], None if EVERY else 1):
        wrong = project.joined(stage, STAGES[stage].split(), moment)
        assert not wrong, f"{stage}, joined {moment} ({project.operations[stage][moment.number]}): " + "; ".join(wrong)


def test_no_reader_takes_what_a_kill_left_of_two_runs(project):
    """Another run is written to the folder of a finished one."""
    project.at("another", "linear")
    command = STAGES["pretrain"].replace("--seed 0", "--seed 1").split()
    before = tree(project.starts["linear"] / RUN)
    assert before
    for number in range(0, 200, 1 if EVERY else 100):
        code = project.read("another", command, Moment(number), STAGES["linear"].split())
        assert code == 2 or tree(project.root / RUN) == before, number


def test_an_evaluation_that_is_killed_between_its_files_goes_on(project):
    """It has given a name to some of its files and not to the others, and is killed before the last one again."""
    command, operations = STAGES["linear"].split(), project.operations["linear"]
    places = [n for n, one in enumerate(operations) if one.startswith(f"os.rename {EVALUATIONS}/linear.")]
    assert [operations[n].rpartition(".")[2] for n in places] == ["json", "parquet", "csv", "csv", "json", "json"]
    assert project.killed("linear", command, [Moment(places[2])]) == []


def test_the_harness_finds_what_a_kill_leaves(project, tmp_path):
    """Files that are lost, changed or left behind are differences; two kills at once are one trial."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    before = tree(tmp_path)
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").rename(tmp_path / ".b.part")
    assert set(differences(tree(tmp_path), before)) == {"left behind: .b.part", "another content: a", "missing: b"}
    assert project.killed("embed", STAGES["embed"].split(), [Moment(0), Moment(0)]) == []
    assert project.killed("embed", ["embed", "nothing", "--output", "x.parquet"], [Moment(0)])


def test_a_file_that_a_killed_process_left_goes_and_that_of_a_living_one_stays(tmp_path):
    """Also that of another machine, whose processes nobody here knows, and what somebody else calls like that."""
    child = fork(lambda: _die_while_writing(tmp_path / "a.json"), tmp_path / "log.txt")
    assert code_of(child) == -signal.SIGKILL
    (left,) = tmp_path.glob(".a.json.*.part")
    kept = {
        left.with_name(left.name.replace(str(child), str(os.getpid()))),
        left.with_name(f".a.json.elsewhere.{child}.1234.part"),
        left.with_name(f".a.json.mine.{child}.1234.txt"),
        left.with_name(left.name.replace(".a.json", ".b.json")),
    }
    for path in kept:
        path.write_text("mine")
    write_json(tmp_path / "a.json", {})
    assert {path for path in tmp_path.iterdir() if path.name.startswith(".")} == kept
    assert (tmp_path / "a.json").read_text() == "{}\n"


def _die_while_writing(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
