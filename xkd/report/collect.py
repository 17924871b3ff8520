"""Collects the figures of every run that params.yaml asks for; the settings list the runs, never the disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from xkd import runs
from xkd.errors import UserError
from xkd.params import dataset_of, task_dataset, tasks_of
from xkd.protocols import Column, headline_metrics
from xkd.runs import evaluations, records
from xkd.runs.records import ClipsUsed, EvaluationRecord, RunRecord
from xkd.settings import Params


@dataclass(frozen=True)
class Figure:
    """One figure of a run, in percent.

    Attributes:
        task: the entry of `tasks` that it comes from.
        column: its owner, modality and method in the evaluation of that task.
        metric: top1, map or recall1, or that of a plugin's protocol.
        chance: what guessing scores, in percent; None where an earlier version did not say.
    """

    task: str
    column: Column
    metric: str
    percent: float
    chance: float | None


@dataclass(frozen=True)
class Run:
    """One (ablation, seed): pretraining and all its evaluations.

    Attributes:
        folder, evaluations: folders of the files of pretraining, and of its evaluations.
        record: contents of the JSON files of pretraining.
        dataset: what it was pretrained on.
        clips: how many clips took part in the evaluation of the first task on the data set of the table.
        items: per modality, distinct sources (scans, recordings) that its test clips are made of.
        figures: by column of the table.
        scores: results of the evaluation of each task.
    """

    ablation: str
    seed: int
    dataset: str
    folder: Path
    evaluations: Path
    record: RunRecord
    clips: ClipsUsed
    items: dict[str, int]
    figures: dict[Column, Figure]
    scores: dict[str, EvaluationRecord]


@dataclass(frozen=True)
class Results:
    """All runs of the table, per ablation in the order of the settings and per seed in the order of `seeds`.

    Attributes:
        manifest: hash of the data set of the table.
    """

    params: Params
    manifest: str
    runs: dict[str, list[Run]]

    @property
    def columns(self) -> list[Column]:
        """Columns that at least one run has, in the order of the table."""
        found = {column for runs in self.runs.values() for run in runs for column in run.figures}
        return sorted(found, key=lambda column: column.place)

    @property
    def main_columns(self) -> list[Column]:
        """Columns of the students; all columns where every row was given teachers."""
        return [column for column in self.columns if column.owner == "student"] or self.columns

    @property
    def main(self) -> Results:
        """The rows that are there for their own sake; those of sweeps alone have a figure and a table of their own."""
        compared = {one.than for row in self.params.ablations.values() for one in row.expects}
        left_out = {point.row for point in self.params.points if point.added} - compared
        return replace(self, runs={name: runs for name, runs in self.runs.items() if name not in left_out})

    def figures(self, ablation: str) -> dict[Column, Figure]:
        """Returns the figures that every seed of the row has, as its first seed has them."""
        runs = self.runs[ablation]
        return {name: one for name, one in runs[0].figures.items() if all(name in run.figures for run in runs)}

    def of_column(self, column: Column) -> list[Figure]:
        """Returns the figures of all runs that have this column."""
        return [run.figures[column] for runs in self.runs.values() for run in runs if column in run.figures]

    def kind(self, task: str) -> str:
        """Returns the kind of the data set that a task is on."""
        return self.params.datasets[task_dataset(self.params, task)].kind

    def elsewhere(self, ablation: str) -> bool:
        """Returns whether a row is pretrained on another data set than the table's."""
        return self.runs[ablation][0].dataset != self.params.dataset

    def metric(self, column: Column) -> str:
        """Returns the metric of a column: top1, map, recall1, or that of a plugin's protocol."""
        return self.of_column(column)[0].metric

    def chance(self, column: Column) -> float | None:
        """Returns what guessing scores in a column, in percent, mean over the runs that say so."""
        known = [figure.chance for figure in self.of_column(column) if figure.chance is not None]
        return sum(known) / len(known) if known else None

    def values(self, ablation: str, column: Column) -> list[float] | None:
        """Returns one value per seed, or None where the ablation lacks the column."""
        runs = self.runs[ablation]
        return [run.figures[column].percent for run in runs] if all(column in run.figures for run in runs) else None


def collect(params: Params, root: Path = Path()) -> Results:
    """Reads every expected file below `root`/runs and `root`/evals.

    Raises:
        UserError: the first file that is missing or unreadable and the command that makes it, or two runs that
            were made from different versions of a data set.
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
    """Reads one run; returns for each of its metrics files the data set, the file and the manifest hash in it, too."""
    trained_on = dataset_of(params, ablation)
    name = runs.name_of(trained_on, ablation, seed)
    folder, evals = root / runs.RUNS / name, root / evaluations.folder_of(params.dataset, ablation, seed)
    pretrain = _command(params, f"pretrain --ablation {ablation} --seed {seed} --out {runs.RUNS / name}", trained_on)
    record = records.read_run(folder, pretrain)
    scores, sources = {}, [(trained_on, (folder / runs.METRICS, record.metrics.manifest))]
    for task in tasks_of(params, ablation):
        path, dataset = evals / f"{task}.json", task_dataset(params, task)
        evaluate = f"evaluate --run {runs.RUNS / name} --task {task} --out {path.relative_to(root)}"
        command = _command(params, evaluate, dataset)
        scores[task] = evaluations.read_results(path, folder, command)
        _check_question(params, path, scores[task], task, command)
        sources.append((dataset, (path, scores[task].manifest)))
    own = next((s for task, s in scores.items() if not params.tasks[task].dataset), None)
    run = Run(
        ablation=ablation,
        seed=seed,
        dataset=trained_on,
        folder=folder,
        evaluations=evals,
        record=record,
        clips=own.clips if own else ClipsUsed(train=0, test=0),
        items=own.items if own else {},
        figures=_figures(params, scores),
        scores=scores,
    )
    return run, sources


def _check_question(params: Params, path: Path, scores: EvaluationRecord, task: str, command: str) -> None:
    """Refuses results of another task, protocol, data set or other folds than the settings ask for."""
    wanted = params.tasks[task]
    folds = sorted(wanted.folds) if len(wanted.folds) > 1 else []
    for name, found, asked in (
        ("task", scores.task, task),
        ("protocol", scores.protocol, wanted.protocol),
        ("data set", scores.dataset, task_dataset(params, task)),
        ("folds", sorted(scores.folds), folds),
    ):
        if found != asked:
            raise UserError(
                f"{path}: {name} {found or 'none'}, but the settings ask for {asked or 'none'}; make it with: {command}"
            )


def _figures(params: Params, scores: dict[str, EvaluationRecord]) -> dict[Column, Figure]:
    """Returns the figure of each column of the table."""
    found = {}
    for task, part in scores.items():
        protocol = params.tasks[task].protocol
        for column, metric in headline_metrics(protocol, part.metrics).items():
            percent, chance = part.metrics[f"{column}.{metric}"], part.chance.get(str(column))
            found[column.of_task(task, protocol)] = Figure(task, column, metric, percent, chance)
    return found


def _same_data(params: Params, first: tuple[Path, str], source: tuple[Path, str]) -> None:
    if source[1] != first[1]:
        raise UserError(
            f"{source[0]}: made from data manifest {source[1]}, but {first[0]} from {first[1]}; a table needs one "
            f"version of a data set: run snakemake --cores all {params.results}/table.csv to bring all runs up to date"
        )


def _command(params: Params, verb: str, dataset: str) -> str:
    """Returns a stage's command line; a settings file that extends another is not the default, so it must be named."""
    stage, options = verb.split(" ", 1)
    settings = " --params SETTINGS" if params.extends else ""
    return f"python -m xkd {stage}{settings} --manifest data/{dataset}/manifest.csv {options}"
