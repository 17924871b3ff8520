"""Reading params.yaml: merged, validated, and explained where it is wrong. The models are in `xkd.settings`."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from xkd import plugins, registry, rows, settings_file
from xkd.errors import UserError
from xkd.recipe import Recipe
from xkd.registry import suggest
from xkd.settings import MODALITY_NAMES, Ablation, Params, Settings, Task, TrainingRequest, checks
from xkd.settings.expectations import applicable, columns_of
from xkd.settings.explain import shown, validated

CHANGEABLE = ("views", "model", "objective", "training")


def load(path: str | Path = "params.yaml") -> Params:
    """Reads, merges (`extends`) and validates settings; every ablation, those of sweeps too, is merged and validated.

    Raises:
        UserError: one line naming the file, the key, what is wrong and, for a typo, the nearest key.
    """
    values = _read(Path(path))
    plugins.use(_plugins(values, path))
    params = validated(Params, values, str(path))
    checks.check(params, path)
    params = rows.expanded(params, _settled, path)
    known = set(params.ablations)
    if params.report.baseline not in known:
        raise UserError(
            f"{path}: report.baseline: no ablation '{params.report.baseline}'{suggest(params.report.baseline, known)}"
        )
    for name, task in params.tasks.items():
        for ablation in task.ablations or ():
            if ablation not in known:
                raise UserError(f"{path}: tasks.{name}.ablations: no ablation '{ablation}'{suggest(ablation, known)}")
        _check_processes(params, name, path)
    columns = {name: _check_row(params, name, path) for name in params.ablations}
    _check_dataset_is_used(params, path)
    return applicable(params, columns, _with_own_expectations(params, path), path)


def _check_row(params: Params, name: str, path: str | Path) -> set[str]:
    """Checks what a row and the tasks need of each other; returns the columns that it can have."""
    merged, tasks = recipe(params, name, path), tasks_of(params, name)
    group = f"ablations.{name}.resources" if params.ablations[name].resources else "resources.pretrain"
    size, asked = merged.training.batch_size, pretrain_request(params, name)
    _shared_evenly(size, f"ablation {name}", asked, f"{path}: {group}")
    for task_name in tasks:
        with_views(merged, params, task_name, path)
        check_peers(merged, params.tasks[task_name], f"{path}: tasks.{task_name}")
    return columns_of(merged, tasks, params)


def check_peers(recipe: Recipe, task: Task, where: str) -> None:
    """Refuses encoders that are not ours in a task that needs more of them than vectors; `where` begins the message."""
    if recipe.training.peers.given and not registry.protocols[task.protocol].reads_vectors():
        able = [name for name, known in registry.protocols.items() if known.reads_vectors()]
        raise UserError(
            f"{where}: {task.protocol} needs encoders of ours, and {recipe.ablation} has peers, which give vectors "
            f"only; leave it out of `ablations`, or use {', '.join(able)}"
        )


def _with_own_expectations(params: Params, path: str | Path) -> set[str]:
    """Returns the rows whose expectations stand in the file itself, not in one that it extends."""
    if params.extends is None:
        return set(params.ablations)
    rows = settings_file.read_settings(Path(path)).get("ablations", {})
    return {name for name, row in rows.items() if row and "expects" in row}


def _plugins(values: dict[str, Any], path: str | Path) -> list[str]:
    """Returns the files that settings name as plugins; they are imported before the names they register are checked."""
    files = values.get("plugins", [])
    if not isinstance(files, list) or not all(isinstance(file, str) and file.isprintable() for file in files):
        raise UserError(f"{path}: plugins: expected a list of Python files, found {shown(files)}")
    return files


def _check_dataset_is_used(params: Params, path: str | Path) -> None:
    """Refuses a data set of the table that no row is pretrained on and no row is judged on."""
    rows = [
        (dataset_of(params, name), *(task_dataset(params, task) for task in tasks_of(params, name)))
        for name in params.ablations
    ]
    if rows and not any(params.dataset in used for used in rows):
        raise UserError(f"{path}: dataset: no row is pretrained on '{params.dataset}', and no task judges one on it")


def dataset_of(params: Params, ablation: str) -> str:
    """Returns the data set that an ablation is pretrained on."""
    return params.ablations[ablation].dataset or params.dataset


def task_dataset(params: Params, task: str) -> str:
    """Returns the data set that a task judges rows on."""
    return params.tasks[task].dataset or params.dataset


def datasets_in_use(params: Params) -> list[str]:
    """Returns the data sets of the table, of the rows' pretraining and of the tasks, each once, the table's first."""
    rows, tasks = (
        (dataset_of(params, name) for name in params.ablations),
        (task_dataset(params, name) for name in params.tasks),
    )
    return list(dict.fromkeys([params.dataset, *rows, *tasks]))


def pretrain_request(params: Params, ablation: str) -> TrainingRequest:
    """Returns what the pretraining of an ablation asks for."""
    return params.resources.pretrain.changed(params.ablations[ablation].resources)


def _check_processes(params: Params, task: str, path: str | Path) -> None:
    """Refuses several processes for a protocol that cannot share batches, or a batch that they cannot share evenly."""
    name, where = params.tasks[task].protocol, f"{path}: resources.protocols.{params.tasks[task].protocol}"
    settings: Any = protocol(params, task, path)
    if registry.protocols[name].shares_batches:
        _shared_evenly(settings.batch_size, f"task {task}", params.resources.of_protocol(name), where)
    elif (own := params.resources.protocols.get(name)) and own.nodes * (own.processes or 1) > 1:
        able = [other for other, known in registry.protocols.items() if known.shares_batches]
        raise UserError(f"{where}: several processes or nodes, which only {', '.join(able)} can use")


def _shared_evenly(batch_size: int, whose: str, asked: TrainingRequest, where: str) -> None:
    if batch_size % asked.all_processes:
        raise UserError(
            f"{where}: {asked.all_processes} processes cannot share a batch of {batch_size} clips evenly ({whose})"
        )


def protocol(params: Params, task: str, path: str | Path = "params.yaml") -> Settings:
    """Returns the settings of a task's protocol, its changes merged in.

    Raises:
        UserError: unknown task, or changes that do not validate.
    """
    if task not in params.tasks:
        raise UserError(f"{path}: no task '{task}'{suggest(task, params.tasks)}")
    chosen = params.tasks[task]
    base = getattr(params.evaluate, chosen.protocol, None) or registry.protocols[chosen.protocol].Settings()
    return validated(type(base), merge(base.model_dump(), chosen.changes), f"{path}: tasks.{task}.changes")


def with_views(recipe: Recipe, params: Params, task: str, path: str | Path = "params.yaml") -> Recipe:
    """Returns a run's settings with the views that a task changes: resolution, length, augmentation.

    Raises:
        UserError: views that do not exist, or that patches of the run's encoders do not tile.
    """
    changes = {"views": params.tasks[task].views}
    return validated(Recipe, merge(recipe.model_dump(), changes), f"{path}: tasks.{task}.views: with {recipe.ablation}")


def tasks_of(params: Params, ablation: str) -> list[str]:
    """Returns an ablation's tasks: those that name it, and those for all rows that have the encoders they judge."""
    merged = recipe(params, ablation)
    return [
        name
        for name, task in params.tasks.items()
        if (ablation in task.ablations if task.ablations is not None else _can_judge(params, task, merged))
    ]


def _given(weights: tuple[str, ...]) -> tuple[str, ...] | None:
    """Reads the modalities of the encoders in these folders; None where one is not there yet."""
    try:
        return tuple(json.loads(Path(path, "config.json").read_bytes())["modality"] for path in weights)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _can_judge(params: Params, task: Task, row: Recipe) -> bool:
    """Says if a run of a row has the encoders that the task needs; of given ones this may not be known yet."""
    protocol, trained = registry.protocols[task.protocol], row.modalities or _given(row.training.weights)
    if row.training.peers.given and (protocol.needs_pairs or not protocol.reads_vectors()):
        return False  # peers give vectors, and nothing has made those of two of them comparable
    require = params.datasets[task.dataset or params.dataset].require
    there = [m for m in task.modalities if require not in MODALITY_NAMES or m == require]
    seen = [m for m in there if trained is None or m in trained]
    return len(seen) >= (len(MODALITY_NAMES) if protocol.needs_pairs else 1)


def recipe(params: Params, ablation: str, path: str | Path = "params.yaml") -> Recipe:
    """Returns the effective settings of one ablation.

    Raises:
        UserError: unknown ablation, or changes that do not validate.
    """
    if ablation not in params.ablations:
        raise UserError(f"{path}: no ablation '{ablation}'{suggest(ablation, params.ablations)}")
    return _merged(params, ablation, params.ablations[ablation], f"{path}: ablations.{ablation}.changes")


def _merged(params: Params, name: str, row: Ablation, where: str) -> Recipe:
    for group in row.changes:
        if group not in CHANGEABLE:
            raise UserError(f"{where}: '{group}' cannot be changed per ablation{suggest(group, CHANGEABLE)}")
    base = params.model_dump(include={"clips", "logmel", *CHANGEABLE}) | {"dataset": row.dataset or params.dataset}
    return validated(Recipe, {"ablation": name, **merge(base, row.changes)}, where)


def _settled(params: Params, row: Ablation, where: str) -> str:
    """Returns the settings that decide the results of a row as text: equal for rows that need one training."""
    return canonical(decisive(_merged(params, "any", row, where)))


def decisive(recipe: Recipe) -> dict[str, Any]:
    """Returns the settings of a job that can change its result; `Training.HOW` only says how it is executed."""
    return recipe.model_dump(mode="json", exclude={"training": set(recipe.training.HOW)})


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings: {"training": {"epochs": 2}} to {"training.epochs": 2}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def read_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Validates a recipe that a run saved.

    Raises:
        UserError: it is not valid; `where` begins the message.
    """
    return validated(Recipe, values, where)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merges `changes` into a copy of `base`, mapping by mapping; lists and scalars are replaced whole."""
    merged = deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


def schema() -> dict[str, Any]:
    """Returns the JSON schema of params.yaml, as committed in workflow/schemas/params.schema.json."""
    return Params.model_json_schema()


def canonical(settings: BaseModel | dict[str, Any]) -> str:
    """Returns settings as one line of JSON with sorted keys: equal settings give equal text."""
    values = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    return json.dumps(values, sort_keys=True)


def _read(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a settings file merged into the one that it extends; `extending` are the files that led here."""
    chain = (*extending, path)
    if os.path.realpath(path) in map(os.path.realpath, extending):
        raise UserError(f"{extending[0]}: extends goes in a circle: {' -> '.join(map(str, chain))}")
    values = settings_file.read_settings(path)
    parent = values.get("extends")
    if parent is None:
        return values
    if not isinstance(parent, str) or not parent.isprintable():
        raise UserError(f"{path}: extends: expected the name of one settings file, found {shown(parent)}")
    return _without_nulls(merge(_read(path.parent / parent, chain), values))


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Drops keys set to null, by which a file takes away keys of the file that it extends."""
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}
