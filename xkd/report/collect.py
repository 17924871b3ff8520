"""Reads the metrics of every run that params.yaml asks for; the list comes from the settings, never from the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, FiniteFloat, ValidationError

from xkd.errors import UserError
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


class ClipCounts(BaseModel):
    train: int
    test: int


class Scores(BaseModel):
    """What the table needs of evals/.../<protocol>.json."""

    manifest: str
    clips: ClipCounts
    items: dict[str, int]
    metrics: dict[str, FiniteFloat]


@dataclass(frozen=True)
class Run:
    """One (ablation, seed): pretraining and all its evaluations.

    Attributes:
        seconds: of pretraining.
        items: per modality, distinct sources (scans, recordings) that the test clips are made of.
        accuracies: top-1 in percent per task, such as "student.video.linear".
    """

    ablation: str
    seed: int
    folder: Path
    trainable_parameters: int
    seconds: float
    run_id: str | None
    clips: ClipCounts
    items: dict[str, int]
    accuracies: dict[str, float]


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


def protocols(params: Params, ablation: str) -> tuple[str, ...]:
    """The evaluations that the settings ask of an ablation."""
    return ("linear", "finetune") if ablation in params.evaluate.finetune.ablations else ("linear",)


def collect(params: Params, root: Path = Path()) -> Results:
    """Reads every expected file below `root`/runs and `root`/evals.

    Raises:
        UserError: the first file that is missing or unreadable and the command that makes it, or two runs that
            were made from different data.
    """
    runs: dict[str, list[Run]] = {name: [] for name in params.ablations}
    first: tuple[Path, str] | None = None
    for ablation in params.ablations:
        for seed in params.seeds:
            run, sources = _read_run(params, root, ablation, seed)
            first = first or sources[0]
            _same_data(params, first, sources)
            runs[ablation].append(run)
    return Results(params, first[1], runs)


def _read_run(params: Params, root: Path, ablation: str, seed: int) -> tuple[Run, list[tuple[Path, str]]]:
    """One run and the manifest hash that each of its metrics files names."""
    tail = Path(params.dataset, ablation, f"seed{seed}")
    folder, evals = root / "runs" / tail, root / "evals" / tail
    pretrain = _command(params, f"pretrain --ablation {ablation} --seed {seed} --out runs/{tail}")
    metrics = _read(folder / "metrics.json", RunMetrics, pretrain)
    times = _read(folder / "times.json", RunTimes, pretrain)
    for name in ("history.csv", "steps.csv", "samples.npz"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; make it with: {pretrain}")
    tracking = _read(folder / "mlflow.json", RunTracking, pretrain)
    scores, sources = {}, [(folder / "metrics.json", metrics.manifest)]
    for protocol in protocols(params, ablation):
        path = evals / f"{protocol}.json"
        evaluate = f"evaluate --run runs/{tail} --protocol {protocol} --out evals/{tail}/{protocol}.json"
        scores[protocol] = _read(path, Scores, _command(params, evaluate))
        sources.append((path, scores[protocol].manifest))
    run = Run(
        ablation=ablation,
        seed=seed,
        folder=folder,
        trainable_parameters=metrics.trainable_parameters,
        seconds=times.seconds,
        run_id=tracking.run_id,
        clips=scores["linear"].clips,
        items=scores["linear"].items,
        accuracies=_accuracies(scores.values()),
    )
    return run, sources


def _accuracies(scores: Iterable[Scores]) -> dict[str, float]:
    every = [pair for part in scores for pair in part.metrics.items()]
    return {key.removesuffix(".top1"): value for key, value in every if key.endswith(".top1")}


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


def _same_data(params: Params, first: tuple[Path, str], sources: list[tuple[Path, str]]) -> None:
    for path, manifest in sources:
        if manifest != first[1]:
            raise UserError(
                f"{path}: made from data manifest {manifest}, but {first[0]} from {first[1]}; a table needs one data "
                f"set: run snakemake --cores all {params.results}/table.csv to bring all runs up to date"
            )


def _command(params: Params, verb: str) -> str:
    """The stage's command line; a settings file that extends another is not the default, so it must be named."""
    stage, options = verb.split(" ", 1)
    settings = " --params SETTINGS" if params.extends else ""
    return f"python -m xkd {stage}{settings} --manifest data/{params.dataset}/manifest.csv {options}"


def _task_order(task: str) -> tuple:
    """student before teacher, linear, knn, finetune, then video, audio, both; unknown words after the known ones."""
    known = (("student", "teacher"), ("linear", "knn", "finetune"), ("video", "audio", "both"))
    owner, modality, protocol = task.split(".")
    ranks = [
        words.index(word) if word in words else len(words) for word, words in zip((owner, protocol, modality), known)
    ]
    return (*ranks, task)
