"""Fabricated runs and evaluations: files as `pretrain` and `evaluate` write them, with figures chosen by hand."""

import json
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from invented import ABLATIONS, AUDIO, SEEDS, TEACHERS, VIDEO
from run_folders import seal

from xkd import runs
from xkd.files import sha256
from xkd.report import page
from xkd.report.collect import collect
from xkd.report.csv_table import ablation_table
from xkd.report.dataset import data_facts
from xkd.settings import Params
from xkd.stages import table as stage
from xkd.training.objective import OWN_COLUMNS


class Project:
    """A folder with params and all files that its table needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.values = {
            "dataset": "digits",
            "seeds": list(SEEDS),
            "datasets": {"digits": {"kind": "talking_digits"}},
            "evaluate": {},
            "tasks": {
                "linear": {"protocol": "linear"},
                "finetune": {"protocol": "finetune", "ablations": ["xkd", "ae"]},
            },
            "report": {"baseline": "ae"},
            "ablations": {name: dict(entry) for name, entry in ABLATIONS.items()},
            **{group: {} for group in ("clips", "logmel", "views", "model", "objective", "training")},
        }

    @property
    def params(self) -> Params:
        return Params.model_validate(self.values)

    def run_folder(self, ablation: str, seed: int) -> Path:
        dataset = self.values["ablations"].get(ablation, {}).get("dataset", "digits")
        return self.root / "runs" / dataset / ablation / f"seed{seed}"

    def scores_file(self, ablation: str, seed: int, protocol: str = "linear") -> Path:
        return self.root / "evals" / "digits" / ablation / f"seed{seed}" / f"{protocol}.json"

    def table(self) -> pd.DataFrame:
        """table.csv as text, with the ablation as index."""
        lines = StringIO(ablation_table(collect(self.params)).to_csv(index=False))
        return pd.read_csv(lines, dtype=str, keep_default_na=False, index_col="ablation")

    def shown(self) -> dict:
        """What the templates show."""
        results = collect(self.params)
        return page.context(results, data_facts(Path("data/digits"), results.manifest))

    def markdown(self) -> str:
        return page.markdown(self.shown())

    def html(self, figures: Path) -> str:
        """The page with figures that are drawn already, without pictures and sounds of clips."""
        words = dict.fromkeys(page.FIGURES, "words")
        return page.html(self.shown(), collect(self.params), page.Figures(figures, words), media=None)

    def write_report(self, out: str = "results") -> Path:
        """Runs the whole stage, figures included."""
        stage.run(self.params, self.root / out)
        return self.root / out

    def write_all(self) -> None:
        for ablation in ABLATIONS:
            for seed in SEEDS:
                self.write_run(ablation, seed)
                self.write_scores(ablation, seed)
        self.write_data()

    def write_run(self, ablation: str, seed: int, manifest: str = "abc123") -> None:
        folder = self.run_folder(ablation, seed)
        about = {"ablation": ablation, "manifest": manifest, "trainable_parameters": 1000}
        write_json(folder / "metrics.json", {**about, "columns": [asdict(column) for column in OWN_COLUMNS]})
        write_json(folder / "times.json", {"seconds": 10.0 + seed, "clips_per_second": 5.0})
        write_json(folder / "mlflow.json", {"run_id": f"{ablation}-{seed}", "experiment_id": "1"})
        history(ablation, seed, "epoch").to_csv(folder / "history.csv", index=False)
        history(ablation, seed, "step").to_csv(folder / "steps.csv", index=False)
        write_json(folder / "versions.json", {"xkd": "0.1.0", "git": "c0ffee", "torch": "2.14.1"})
        np.savez(folder / "samples.npz", **samples(ablation))
        np.savez(folder / "embeddings.npz", **embeddings(ablation))
        for name in ("config.json", "samples.png"):
            (folder / name).write_text("of no interest to the report")
        seal(folder)

    def write_scores(self, ablation: str, seed: int) -> None:
        index = SEEDS.index(seed)
        metrics = {"student.video.linear.top1": VIDEO[ablation][index], "student.video.linear.map": 99.0}
        metrics["student.video.knn.top1"] = VIDEO[ablation][index] - 1
        if ablation in AUDIO:
            metrics["student.audio.linear.top1"] = AUDIO[ablation][index]
        if ablation in TEACHERS:
            metrics["teacher.video.linear.top1"] = VIDEO[ablation][index] - 10
        clips = {"train": 40, "test": 20, "listed_train": 40, "listed_test": 20, "left_out": {"train": {}, "test": {}}}
        linear = {"task": "linear", "protocol": "linear"}
        rest = {
            "dataset": "digits",
            "manifest": "abc123",
            "clips": clips,
            "items": {"video": 7, "audio": 3},
            "notes": [],
        }
        rest["encoders"] = runs.encoders_hash(self.run_folder(ablation, seed))
        chance = {name.rpartition(".")[0]: 25.0 for name in metrics}
        pairs = [("cat", "cat", 9), ("cat", "dog", 1 + seed), ("dog", "dog", 10)]
        rows = [("student.video.linear", *pair) for pair in pairs] + [("student.video.knn", "cat", "cat", 99)]
        confusions = pd.DataFrame(rows, columns=["method", "label", "predicted", "clips"])
        beside = self.scores_file(ablation, seed).with_suffix(".confusion.csv")
        beside.parent.mkdir(parents=True, exist_ok=True)
        confusions.to_csv(beside, index=False)
        files = {".confusion.csv": sha256(beside)}
        write_json(
            self.scores_file(ablation, seed), {**rest, **linear, "metrics": metrics, "chance": chance, "files": files}
        )
        if ablation in ("xkd", "ae"):
            finetuned = {"student.video.finetune.top1": 60.0 + seed}
            asked = {"task": "finetune", "protocol": "finetune"}
            write_json(
                self.scores_file(ablation, seed, "finetune"), {**rest, **asked, "metrics": finetuned, "files": {}}
            )

    def write_data(self) -> None:
        folder = self.root / "data" / "digits"
        counts = {"expected": 66, "found": 61, "usable": 60, "splits": {"train": 40, "test": 20}}
        write_json(folder / "summary.json", {"hash": "abc123", **counts, "reasons": {"no audio": 6}})
        rows = [{"id": i, "split": "train" if i < 40 else "test", "label": i % 4, "status": "ok"} for i in range(60)]
        pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


def write_json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def history(ablation: str, seed: int, index: str) -> pd.DataFrame:
    """Falling losses; columns that an ablation lacks are empty, and an untrained one has no rows."""
    rows = 0 if ablation == "random_init" else 5
    times = np.arange(rows)
    frame = pd.DataFrame(
        {index: times, "reconstruction_video": 1 / (1 + times + seed), "feature_spread_video": times * 0.1}
    )
    for column in ("distillation_video", "teacher_entropy_video", "centre_norm_video", "alignment_students"):
        frame[column] = 2 / (1 + times) if ablation in TEACHERS else None
    return frame


def samples(ablation: str) -> dict[str, np.ndarray]:
    """8 clips of 8 frames and 16 x 24 log-mels; video in one modality only for recon_video."""
    noise = np.random.default_rng(0)
    kinds = ("masked", "predicted", "true")
    arrays = {f"video_{kind}": noise.random((8, 8, 16, 16, 3), dtype=np.float32) for kind in kinds}
    if ablation != "recon_video":
        arrays |= {f"audio_{kind}": noise.standard_normal((8, 16, 24)).astype(np.float32) for kind in kinds}
    if ablation == "xkd":
        arrays["weights_video"] = np.ones((8, 2, 4, 4), np.float32)
        arrays["weights_audio"] = np.ones((8, 4, 6), np.float32)
    return arrays


def embeddings(ablation: str) -> dict[str, np.ndarray]:
    """12 clips of 3 labels: unrelated before training; afterwards each sound lies beside its picture."""
    if ablation not in TEACHERS:
        return {"ids": np.array([], dtype=str), "labels": np.array([], dtype=str)}
    noise = np.random.default_rng(1)
    arrays = {
        f"{m}_{moment}": noise.standard_normal((12, 6)) for m in ("video", "audio") for moment in ("before", "after")
    }
    arrays["audio_after"] = arrays["video_after"] + 0.01 * noise.standard_normal((12, 6))
    arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    return {
        "ids": np.array([f"clip{i}" for i in range(12)]),
        "labels": np.array([str(i % 3) for i in range(12)]),
        **arrays,
    }


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """A complete fabricated project; the working folder is its root."""
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    made.write_all()
    return made


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """Folder that the stage wrote for a complete fabricated project, once for all tests that only look at it."""
    root = tmp_path_factory.mktemp("project")
    made = Project(root)
    made.write_all()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return made.write_report()
