"""Says how much of its data set's lists each task used, and what else an evaluation says against its figures."""

from __future__ import annotations

from xkd.data import catalogue
from xkd.params import recipe, task_dataset, tasks_of
from xkd.report.collect import Results
from xkd.runs.records import ClipsUsed

ROLE_WORDS = {"test": "test", "train": "training"}


def shares(results: Results) -> str:
    """Returns one line: the test clips that each task used, of those that its data set's list names."""
    return ", ".join(
        f"`{task}` {said}"
        for task in results.params.tasks
        for said in dict.fromkeys(
            share(_counts(results, ablation, task), "test")
            for ablation in results.runs
            if task in tasks_of(results.params, ablation)
        )
    )


def share(counts: ClipsUsed, split: str) -> str:
    """Returns text such as "1,115 of 1,530", or one number where an earlier version did not count the second."""
    used, listed = counts.used(split)
    return f"{used:,}" if listed is None else f"{used:,} of {listed:,}"


def deviations(results: Results, ablation: str, task: str) -> list[str]:
    """Returns how a task deviates from its data set's list: missing clips, folds other than the official ones."""
    params, counts = results.params, _counts(results, ablation, task)
    dataset = params.datasets[task_dataset(params, task)]
    known = catalogue.known_datasets().get(dataset.kind)
    official = "official " if _is_official(dataset.kind) else ""
    found = []
    for split, role in ROLE_WORDS.items():
        used, listed = counts.used(split)
        if listed is not None and used != listed:
            folds = results.runs[ablation][0].scores[task].folds
            each = ", ".join(f"fold {name}: {share(fold.clips, split)}" for name, fold in folds.items())
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.left_out.get(split, {}).items())
            more = "; ".join(part for part in (each, f"left out: {reasons}" if reasons else "") if part)
            found.append(f"{share(counts, split)} {official}{role} clips" + (f" ({more})" if more else ""))
    if dataset.limit and not (known and known.generated):
        found.append(f"at most {dataset.limit} clips of each class and split (limit)")
    usual, folds_here = known.folds if known else (), params.tasks[task].folds
    if usual and set(folds_here) != set(usual):
        found.append(f"fold {', '.join(folds_here) or usual[0]} alone, of the folds {', '.join(usual)}")
    return found


def verdict(results: Results, task: str) -> str:
    """Returns what a figure on clips that deviate is called."""
    return "not the official protocol" if _is_official(results.kind(task)) else "incomplete"


def notes(results: Results) -> list[str]:
    """Returns a sentence per task and kind of deviation or remark, and for each row whose encoders are not ours."""
    about: dict[tuple[str, str], list[str]] = {}
    for ablation, runs in results.runs.items():
        for task in tasks_of(results.params, ablation):
            if found := deviations(results, ablation, task):
                sentence = f"**{verdict(results, task).capitalize()}**: {'; '.join(found)}."
                about.setdefault((task, sentence), []).append(ablation)
            for sentence in dict.fromkeys(note for run in runs for note in run.scores[task].notes):
                about.setdefault((task, sentence), []).append(ablation)
    order = list(results.params.tasks)
    of_tasks = [
        f"Task `{task}`, {_rows(results, task, rows)}: {sentence}"
        for (task, sentence), rows in sorted(about.items(), key=lambda item: order.index(item[0][0]))
    ]
    return [*of_tasks, *_peers(results)]


def _peers(results: Results) -> list[str]:
    """Returns a sentence for each row whose encoders are not ours: which they are."""
    found = []
    for name, runs in results.runs.items():
        if recipe(results.params, name).training.peers.given:
            given = "; ".join(f"{m}: {origin}" for m, origin in runs[0].record.metrics.given.items())
            found.append(f"Row `{name}`: encoders that were not trained here. {given}.")
    return found


def _is_official(kind: str) -> bool:
    known = catalogue.known_datasets().get(kind)
    return known is not None and not known.generated


def _rows(results: Results, task: str, rows: list[str]) -> str:
    if rows == [name for name in results.runs if task in tasks_of(results.params, name)]:
        return "all rows"
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(f'`{name}`' for name in rows)}"


def _counts(results: Results, ablation: str, task: str) -> ClipsUsed:
    return results.runs[ablation][0].scores[task].clips
