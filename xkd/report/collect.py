"""Reads the metrics of every run that params.yaml asks for; the list comes from the settings, never from the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, FiniteFloat, RootModel, ValidationError

from xkd import runs
from xkd.errors import UserError
from xkd.files import sha256
from xkd.params import column, headline_metrics, tasks_of
from xkd.settings import Params

Content = TypeVar("Content", bound=BaseModel)


class RunMetrics(BaseModel):
    """What the table needs of runs/.../metrics.json."""

    manifest: str
    trainable_parameters: int
    clips: int | None = None
    given: dict[str, str] = {}


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
    """Clips that took part, those that the list of the data set names, and why the others did not; over folds, each clip once."""

    train: int
    test: int
    listed_train: int | None = None  # earlier versions did not count them
    listed_test: int | None = None
    left_out: dict[str, dict[str, int]] = {}

    def used(self, split: str) -> tuple[int, int | None]:
        """How many took part, of how many."""
        return (self.test, self.listed_test) if split == "test" else (self.train, self.listed_train)


class FoldScores(BaseModel):
    clips: ClipCounts


class Scores(BaseModel):
    """What the table needs of evals/.../<task>.json."""

    dataset: str
    task: str
    protocol: str
    manifest: str
    clips: ClipCounts
    items: dict[str, int]
    metrics: dict[str, FiniteFloat]
    encoders: str
    files: dict[str, str]
    chance: dict[str, FiniteFloat] = {}
    notes: list[str] = []
    folds: dict[str, FoldScores] = {}


@dataclass(frozen=True)
class Column:
    """A figure of one run: what it is, in percent.

    Attributes:
        task: the entry of `tasks` that it comes from.
        metric: top1, map or recall1.
        chance: what guessing scores, in percent; None where an earlier version did not say.
    """

    task: str
    owner: str
    modality: str
    method: str
    metric: str
    percent: float
    chance: float | None


@dataclass(frozen=True)
class Run:
    """One (ablation, seed): pretraining and all its evaluations.

    Attributes:
        folder, evaluations: what pretraining wrote, and what its evaluations wrote.
        seconds: of pretraining.
        run_id, experiment_id: in MLflow; None if it was not tracked.
        items: per modality, distinct sources (scans, recordings) that the test clips are made of.
        columns: the figure of each column of the table, such as "student.video.linear".
        scores: what the evaluation of each task wrote.
        pretraining_clips: usable clips of the data that it was pretrained on.
        given: per modality the origin of the encoders that the row was given, if it was.
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
    columns: dict[str, Column]
    scores: dict[str, Scores]
    given: dict[str, str]
    pretraining_clips: int | None
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
        return sorted({key for runs in self.runs.values() for run in runs for key in run.columns}, key=_task_order)

    @property
    def main_tasks(self) -> list[str]:
        """Those of the students; of all where every row was given teachers."""
        return [task for task in self.tasks if task.startswith("student.")] or self.tasks

    def columns(self, ablation: str) -> dict[str, Column]:
        """Columns that every seed of the row has, as its first seed has them."""
        runs = self.runs[ablation]
        return {name: column for name, column in runs[0].columns.items() if all(name in run.columns for run in runs)}

    def kind(self, task: str) -> str:
        """Of the data set that a task is on."""
        return self.params.datasets[self.params.tasks[task].dataset or self.params.dataset].kind

    def metric(self, task: str) -> str:
        """top1, map or recall1."""
        return next(run.columns[task].metric for runs in self.runs.values() for run in runs if task in run.columns)

    def chance(self, task: str) -> float | None:
        """What guessing scores in a task, in percent, mean over the runs that say so."""
        found = [run.columns[task].chance for runs in self.runs.values() for run in runs if task in run.columns]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known else None

    def values(self, ablation: str, task: str) -> list[float] | None:
        """One value per seed, or None where the ablation lacks the task."""
        runs = self.runs[ablation]
        return [run.columns[task].percent for run in runs] if all(task in run.columns for run in runs) else None


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
        _check_question(params, path, scores[task], task, command)
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
        columns=_columns(params, scores),
        scores=scores,
        given=metrics.given,
        pretraining_clips=metrics.clips,
        versions=versions.root,
    )
    return run, sources


def _check_question(params: Params, path: Path, scores: Scores, task: str, command: str) -> None:
    """Refuses results of another task, protocol, data set or other folds than the settings ask for."""
    wanted = params.tasks[task]
    folds = sorted(wanted.folds) if len(wanted.folds) > 1 else []
    for name, found, asked in (
        ("task", scores.task, task),
        ("protocol", scores.protocol, wanted.protocol),
        ("data set", scores.dataset, wanted.dataset or params.dataset),
        ("folds", sorted(scores.folds), folds),
    ):
        if found != asked:
            raise UserError(
                f"{path}: {name} {found or 'none'}, but the settings ask for {asked or 'none'}; make it with: {command}"
            )


def _check_evaluation(path: Path, scores: Scores, run: Path, command: str) -> None:
    """Whether the files beside the results were written with them, and the run still has the weights that they judge."""
    if scores.encoders != runs.encoders_hash(run):
        raise UserError(f"{path}: judges other encoders than those in {run}; make it with: {command}")
    for suffix, digest in scores.files.items():
        beside = path.with_suffix(suffix)
        if beside.is_file() and sha256(beside) != digest:
            raise UserError(f"{beside}: not the file that was written with {path.name}; make both with: {command}")


def _columns(params: Params, scores: dict[str, Scores]) -> dict[str, Column]:
    """The figure of each column of the table."""
    found = {}
    for task, part in scores.items():
        for classifier, metric in headline_metrics(part.metrics).items():
            name = column(task, params.tasks[task].protocol, classifier)
            percent, chance = part.metrics[f"{classifier}.{metric}"], part.chance.get(classifier)
            owner, modality, method = classifier.split(".")
            found[name] = Column(task, owner, modality, method, metric, percent, chance)
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
