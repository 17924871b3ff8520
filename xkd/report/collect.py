"""Reads the metrics of every run that params.yaml asks for; the list comes from the settings, never from the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, FiniteFloat, RootModel, ValidationError

from xkd import runs
from xkd.errors import UserError
from xkd.files import sha256
from xkd.params import column, headline, tasks_of
from xkd.settings import Params

Content = TypeVar("Content", bound=BaseModel)


class RunMetrics(BaseModel):
    """What the table needs of runs/.../metrics.json."""

    manifest: str
    trainable_parameters: int


class RunTimes(BaseModel):
    """What the table needs of runs/.../times.json."""

    seconds: FiniteFloat


class RunTracking(BaseModel):
    """runs/.../mlflow.json."""

    run_id: str | None
    experiment_id: str | None = None  # earlier versions did not keep it, and no run is trained again for a link


class RunVersions(RootModel[dict[str, str | None]]):
    """runs/.../versions.json."""


class ClipCounts(BaseModel):
    train: int
    test: int


class Scores(BaseModel):
    """What the table needs of evals/.../<task>.json."""

    manifest: str
    clips: ClipCounts
    items: dict[str, int]
    metrics: dict[str, FiniteFloat]
    encoders: str
    files: dict[str, str]


@dataclass(frozen=True)
class Run:
    """One (ablation, seed): pretraining and all its evaluations.

    Attributes:
        folder, evaluations: what pretraining wrote, and what its evaluations wrote.
        seconds: of pretraining.
        run_id, experiment_id: in MLflow; None if it was not tracked.
        items: per modality, distinct sources (scans, recordings) that the test clips are made of.
        accuracies: top-1 (or mAP, or recall at 1) in percent per column, such as "student.video.linear".
        versions: of the code and libraries that pretrained it, by name.
    """

    ablation: str
    seed: int
    folder: Path
    evaluations: Path
    trainable_parameters: int
    seconds: float
    run_id: str | None
    experiment_id: str | None
    clips: ClipCounts
    items: dict[str, int]
    accuracies: dict[str, float]
    versions: dict[str, str | None]


@dataclass(frozen=True)
class Results:
    """All runs of the table, per ablation in the order of the settings and per seed in the order of `seeds`."""

    params: Params
    manifest: str
    runs: dict[str, list[Run]]

    @property
    def tasks(self) -> list[str]:
        """Tasks that at least one run has, in the order of the table."""
        return sorted({key for runs in self.runs.values() for run in runs for key in run.accuracies}, key=_task_order)

    def values(self, ablation: str, task: str) -> list[float] | None:
        """One value per seed, or None where the ablation lacks the task."""
        runs = self.runs[ablation]
        return [run.accuracies[task] for run in runs] if all(task in run.accuracies for run in runs) else None


def collect(params: Params, root: Path = Path()) -> Results:
    """Reads every expected file below `root`/runs and `root`/evals.

    Raises:
        UserError: the first file that is missing or unreadable and the command that makes it, or two runs that
            were made from different data.
    """
    found: dict[str, list[Run]] = {name: [] for name in params.ablations}
    first: dict[str, tuple[Path, str]] = {}
    for ablation in params.ablations:
        for seed in params.seeds:
            run, sources = _read_run(params, root, ablation, seed)
            for dataset, source in sources:
                _same_data(params, first.setdefault(dataset, source), source)
            found[ablation].append(run)
    return Results(params, first[params.dataset][1], found)


def _read_run(params: Params, root: Path, ablation: str, seed: int) -> tuple[Run, list[tuple[str, tuple[Path, str]]]]:
    """One run, and for each of its metrics files the data set, the file and the manifest hash that it names."""
    tail = Path(params.dataset, ablation, f"seed{seed}")
    folder, evals = root / "runs" / tail, root / "evals" / tail
    pretrain = _command(params, f"pretrain --ablation {ablation} --seed {seed} --out runs/{tail}")
    runs.check(folder, pretrain, weights=False)
    metrics = _read(folder / runs.METRICS, RunMetrics, pretrain)
    times = _read(folder / runs.TIMES, RunTimes, pretrain)
    tracking = _read(folder / runs.TRACKING, RunTracking, pretrain)
    versions = _read(folder / runs.VERSIONS, RunVersions, pretrain)
    scores, sources = {}, [(params.dataset, (folder / runs.METRICS, metrics.manifest))]
    for task in tasks_of(params, ablation):
        path, dataset = evals / f"{task}.json", params.tasks[task].dataset or params.dataset
        evaluate = f"evaluate --run runs/{tail} --task {task} --out evals/{tail}/{task}.json"
        command = _command(params, evaluate, dataset)
        scores[task] = _read(path, Scores, command)
        _check_evaluation(path, scores[task], folder, command)
        sources.append((dataset, (path, scores[task].manifest)))
    own = next((s for task, s in scores.items() if not params.tasks[task].dataset), None)
    run = Run(
        ablation=ablation,
        seed=seed,
        folder=folder,
        evaluations=evals,
        trainable_parameters=metrics.trainable_parameters,
        seconds=times.seconds,
        run_id=tracking.run_id,
        experiment_id=tracking.experiment_id,
        clips=own.clips if own else ClipCounts(train=0, test=0),
        items=own.items if own else {},
        accuracies=_accuracies(params, scores),
        versions=versions.root,
    )
    return run, sources


def _check_evaluation(path: Path, scores: Scores, run: Path, command: str) -> None:
    """Whether the files beside the results were written with them, and the run still has the weights that they judge."""
    if scores.encoders != runs.encoders_hash(run):
        raise UserError(f"{path}: judges other encoders than those in {run}; make it with: {command}")
    for suffix, digest in scores.files.items():
        beside = path.with_suffix(suffix)
        if beside.is_file() and sha256(beside) != digest:
            raise UserError(f"{beside}: not the file that was written with {path.name}; make both with: {command}")


def _accuracies(params: Params, scores: dict[str, Scores]) -> dict[str, float]:
    """The figure of each column of the table."""
    found = {}
    for task, part in scores.items():
        for name, value in headline(part.metrics).items():
            found[column(task, params.tasks[task].protocol, name)] = value
    return found


def _read(path: Path, model: type[Content], command: str) -> Content:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make it with: {command}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "content"
        raise UserError(f"{path}: {key}: {problem['msg']}; remove the file and make it with: {command}") from None


def _same_data(params: Params, first: tuple[Path, str], source: tuple[Path, str]) -> None:
    if source[1] != first[1]:
        raise UserError(
            f"{source[0]}: made from data manifest {source[1]}, but {first[0]} from {first[1]}; a table needs one data "
            f"set: run snakemake --cores all {params.results}/table.csv to bring all runs up to date"
        )


def _command(params: Params, verb: str, dataset: str | None = None) -> str:
    """The stage's command line; a settings file that extends another is not the default, so it must be named."""
    stage, options = verb.split(" ", 1)
    settings = " --params SETTINGS" if params.extends else ""
    return f"python -m xkd {stage}{settings} --manifest data/{dataset or params.dataset}/manifest.csv {options}"


def _task_order(task: str) -> tuple[list[int], str]:
    """student before teacher, linear, knn, svm, layer, retrieval, finetune, then video, audio, both; unknown words after the known ones."""
    known = (
        ("student", "teacher"),
        ("linear", "knn", "svm", "layer", "retrieval", "finetune"),
        ("video", "audio", "both"),
    )
    owner, modality, protocol = task.split(".")
    ranks = [
        words.index(word) if word in words else len(words) for word, words in zip((owner, protocol, modality), known)
    ]
    return ranks, task
