"""The real stages on the miniature, from nothing to the table, by both engines."""

import json
import shutil

import pandas as pd
import pytest
from engine_project import ROOT, one_seed

TIMES = ["seconds", "mlflow_runs"]


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory):
    project = one_seed(tmp_path_factory.mktemp("dvc") / "project")
    done = project.call("dvc", "repro")  # as people do
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_nothing_is_left_to_do(by_snakemake):
    assert by_snakemake.planned() == []


def test_snakemakes_own_report_shows_table_and_figures_with_their_captions(by_snakemake):
    done = by_snakemake.snakemake("--report", "jobs.html")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (by_snakemake.root / "jobs.html").read_text()
    files = (ROOT / "workflow" / "report").glob("*.rst")
    captions = [path.read_text().strip() for path in files if path.stem != "sweeps"]  # the miniature has none
    assert len(captions) == 15
    for caption in captions:
        assert caption.split(":")[0].split("`")[0].strip()[:40] in page
    for label in ("whole report, one page", "training curves", "collapse indicators", "refinement weights"):
        assert label in page


def test_a_task_on_own_clips_is_columns_of_the_table_and_no_reason_to_pretrain(to_change):
    made = sorted((to_change.root / "data" / "miniature" / "raw" / "clips").glob("*.mov"))
    for number, clip in enumerate(made[:12]):
        place = to_change.root / "mine" / ("test" if number > 7 else "train") / ["one", "two words"][number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, place / f"{number}.mov")
    before = to_change.settings()
    mine = {"mine": {"kind": "folder", "source": "mine", "shards": {"form": "decoded"}}}
    task = {"mine": {"protocol": "svm", "dataset": "mine", "ablations": ["xkd"], "changes": {"C": [0.1]}}}
    to_change.write(before | {"datasets": before["datasets"] | mine, "tasks": before["tasks"] | task})
    assert to_change.planned() == ["download", "evaluate xkd seed0 mine", "pack", "prepare", "table"]
    done = to_change.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_csv(to_change.root / "data" / "mine" / "manifest.csv")
    assert set(rows["label"]) == {"one", "two words"}
    assert (rows["status"] == "ok").all()
    assert json.loads((to_change.root / "data" / "mine" / "shards" / "index.json").read_text())["clips"] == 12
    table = pd.read_csv(to_change.root / "results" / "table.csv").set_index("ablation")
    assert pd.notna(table["student.video.mine_svm.mean"]["xkd"])
    assert pd.isna(table["student.video.mine_svm.mean"]["ae"])
    to_change.write(before)
    assert to_change.planned() == ["table"]
    done = to_change.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "student.video.mine_svm.mean" not in pd.read_csv(to_change.root / "results" / "table.csv")


def test_both_engines_make_the_same_table(by_snakemake, by_dvc):
    tables = [pd.read_csv(project.root / "results" / "table.csv") for project in (by_snakemake, by_dvc)]
    assert list(tables[0]["ablation"]) == ["ae", "xkd"]
    pd.testing.assert_frame_equal(*(table.drop(columns=TIMES) for table in tables))


def test_same_seed_gives_identical_metrics_files(by_snakemake, by_dvc):
    """Also with tracking on and off, and from separately generated data."""
    files = [p.relative_to(by_snakemake.root) for p in by_snakemake.root.glob("runs/**/metrics.json")]
    files += [p.relative_to(by_snakemake.root) for p in by_snakemake.root.glob("evals/**/*.json")]
    files = [path for path in files if not path.name.endswith("times.json")]
    assert len(files) == 5
    for path in files:
        assert (by_snakemake.root / path).read_bytes() == (by_dvc.root / path).read_bytes(), path


def test_mlflow_shows_every_run_with_settings_and_results(by_snakemake):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{by_snakemake.root}/mlflow.db")
    linked = pd.read_csv(by_snakemake.root / "results" / "table.csv").set_index("ablation")["mlflow_runs"]
    for ablation in ("ae", "xkd"):
        run = client.get_run(linked[ablation])
        assert (run.info.run_name, run.info.status) == (f"{ablation} seed 0", "FINISHED")
        assert (run.data.params["ablation"], run.data.params["seed"]) == (ablation, "0")
        assert run.data.params["training.epochs"] == "2"
        assert {"loss", "gradient_norm", "student.video.linear"} <= set(run.data.metrics)
        for curve in ("loss", "clips_per_second"):
            steps = [point.step for point in client.get_metric_history(run.info.run_id, curve)]
            assert sorted(set(steps)) == sorted(steps), "a summary of the run is no point of the curve"
        assert {"config.json", "metrics.json", "history.csv"} <= {
            f.path for f in client.list_artifacts(run.info.run_id)
        }


def test_missing_clip_is_one_line_and_keeps_the_results(by_dvc):
    """A clip that vanished after `prepare` stops the stage; nothing replaces it silently."""
    kept = (by_dvc.root / "evals" / "miniature" / "ae" / "seed0" / "linear.json").read_bytes()
    for path in (by_dvc.root / "data" / "miniature").glob("packed/*"):
        path.unlink()
    next((by_dvc.root / "data" / "miniature" / "clips").rglob("*test*")).unlink()
    shutil.rmtree(by_dvc.root / "features")  # with features at hand, clips are not asked for
    run = ["--run", "runs/miniature/ae/seed0", "--task", "linear", "--out", "evals/miniature/ae/seed0/linear.json"]
    done = by_dvc.call("python", "-m", "xkd", "evaluate", "--manifest", "data/miniature/manifest.csv", *run)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("xkd: error: ")
    assert (by_dvc.root / "evals" / "miniature" / "ae" / "seed0" / "linear.json").read_bytes() == kept
