"""Loads the settings for all rules, and selects the settings that each stage uses.

The selected settings enter the `params:` of a rule as JSON with sorted keys, beside a fingerprint of the stage's code.
Snakemake compares both with those of the last run, so that an edit reruns only the stages that it can affect.
"""

import os
import re
import shlex
import sys
from dataclasses import asdict
from functools import cache, wraps
from pathlib import Path

from snakemake.exceptions import WorkflowError

from xkd import plugins, runs
from xkd.data import catalogue
from xkd.data.sources.state import state_of
from xkd.errors import UserError
from xkd.fingerprint import module
from xkd.fingerprint import stage as code_of
from xkd.params import (
    canonical,
    dataset_of,
    datasets_in_use,
    decisive,
    load,
    pretrain_request,
    protocol,
    recipe,
    task_dataset,
    tasks_of,
    with_views,
)
from xkd.rows import rows_of
from xkd.runs.evaluations import folder_of as evaluations_of
from xkd.settings import FrozenSettings
from xkd.settings import ShardSettings
from xkd.settings.base import plugin_files

# Every verb of `python -m xkd` reads this variable. As an argument, the name would enter the record of each job, and the
# same settings under another file name would rerun everything.
PARAMS = os.environ.setdefault("XKD_PARAMS", "params.yaml")
# People send logs when something breaks, so a defect leaves its traceback there; a mistake of the user leaves one line.
os.environ.setdefault("XKD_DEBUG", "defects")
if config:
    raise WorkflowError(
        f"Settings come from {PARAMS} only, since every stage reads that file: edit it, or name another one in the "
        "environment variable XKD_PARAMS. Do not pass --config or --configfile."
    )
try:
    if re.search(r'["$`\\\x00-\x1f]', PARAMS):
        raise UserError(
            f"XKD_PARAMS: {PARAMS!r}: jobs on other machines get this name by a shell; name the file without "
            'quotes ("), $, ` and backslashes'
        )
    if re.search("[{}]", os.getcwd()):
        raise UserError(
            f"{os.getcwd()}: Snakemake takes braces for names that it fills in; rename the folder"
        )
    SETTINGS = load(PARAMS)
except UserError as error:
    print(f"xkd: error: {error}", file=sys.stderr)
    sys.exit(2)

# Jobs use the interpreter that runs Snakemake, whether or not its environment is activated.
PROGRAMS = shlex.quote(str(Path(sys.executable).parent))
# Snakemake would replace names in single braces.
shell.prefix(f'export PATH={PROGRAMS.replace("{", "{{").replace("}", "}}")}:"$PATH"; ')

DATASET = SETTINGS.dataset
MANIFEST = f"data/{DATASET}/manifest.csv"
# A run lies below the data set of its pretraining, where tables of other data sets find it too; evaluations below that of the table.
RUN = str(runs.RUNS / runs.name_of("{dataset}", "{ablation}", "{seed}"))
FEATURES = str(
    runs.FEATURES / runs.name_of(DATASET, "{ablation}", "{seed}") / "{task}.json"
)
EVALUATION = str(evaluations_of(DATASET, "{ablation}", "{seed}") / "{task}")
RUN_FILES = [*runs.FILES, runs.INDEX]
SWEEPS = {
    name: list(dict.fromkeys(p.row for p in SETTINGS.points if p.sweep == name))
    for name in SETTINGS.sweeps
}


envvars:
    "XKD_PARAMS",
    "XKD_DEBUG",


wildcard_constraints:
    dataset="|".join(SETTINGS.datasets),
    ablation="|".join(SETTINGS.ablations),
    seed=r"\d+",
    task="|".join(SETTINGS.tasks),


def once_per(*names: str):
    """Makes a function of wildcards answer once for all jobs that share these wildcards: merging settings takes time."""

    def decorated(function):
        answers = {}

        @wraps(function)
        def answer(wildcards):
            key = tuple(getattr(wildcards, name) for name in names)
            if key not in answers:
                answers[key] = function(wildcards)
            return answers[key]

        return answer

    return decorated


@once_per("dataset")
def raw_settings(wildcards) -> str:
    settings = catalogue.entry(SETTINGS, wildcards.dataset)
    return canonical(
        settings.model_dump(mode="json", exclude={"require", "size", "shards"})
    )


def source(wildcards) -> list[str]:
    """Returns the user's list or archive, or the index of another data set; the stage reports missing files better than the engine."""
    path = catalogue.entry(SETTINGS, wildcards.dataset).source
    if not path:
        return []
    for other in SETTINGS.datasets:
        if other != wildcards.dataset and Path(path).is_relative_to(
            f"data/{other}/raw"
        ):
            return [f"data/{other}/raw/index.csv"]
    return [path] if Path(path).is_file() else []


@cache
def own_files(dataset: str) -> str:
    """Returns the state of the user's files of a data set, so that it is listed and prepared again when they change."""
    return state_of(SETTINGS, dataset)


@once_per("dataset")
def clip_settings(wildcards) -> str:
    require = catalogue.entry(SETTINGS, wildcards.dataset).require
    clips = catalogue.clips(SETTINGS, wildcards.dataset)
    return canonical(
        {
            "require": require,
            "clips": clips.model_dump(mode="json", exclude={"pad"}),
            "limits": SETTINGS.limits.model_dump(mode="json"),
        }
    )


@once_per("dataset")
def shard_settings(wildcards) -> str:
    return canonical(SETTINGS.datasets[wildcards.dataset].shards or ShardSettings())


def kept(outputs):
    """Marks outputs as write-protected where `resources.pretrain.protect` asks for it."""
    return protected(outputs) if SETTINGS.resources.pretrain.protect else outputs


def shards_of(dataset: str) -> list[str]:
    """Returns the index of the shards of a data set, if the settings ask for shards."""
    return (
        [f"data/{dataset}/shards/index.json"]
        if SETTINGS.datasets[dataset].shards
        else []
    )


def run_folder(ablation: str, seed: str) -> str:
    """Returns the folder of a run of this table."""
    return RUN.format(
        dataset=dataset_of(SETTINGS, ablation), ablation=ablation, seed=seed
    )


def encoders_of_run(wildcards) -> str:
    return f"{run_folder(wildcards.ablation, wildcards.seed)}/{runs.ENCODERS}"


def index_of_run(wildcards) -> str:
    return f"{run_folder(wildcards.ablation, wildcards.seed)}/{runs.INDEX}"


@once_per("ablation")
def recipe_settings(wildcards) -> str:
    return canonical(decisive(recipe(SETTINGS, wildcards.ablation, PARAMS)))


def dataset_plugins(wildcards) -> str:
    """Hash of the plugin that lists a data set."""
    return canonical(plugins.code(plugin_files(SETTINGS.datasets[wildcards.dataset])))


@once_per("ablation")
def recipe_plugins(wildcards) -> str:
    """Hashes of the plugins that train a row."""
    return canonical(plugins.code(recipe(SETTINGS, wildcards.ablation, PARAMS).plugins))


@once_per("ablation", "task")
def task_plugins(wildcards) -> str:
    """Hashes of the plugins that evaluate a row: its encoders, augmentations and the protocol, but no term of its objective."""
    seen = with_views(
        recipe(SETTINGS, wildcards.ablation, PARAMS), SETTINGS, wildcards.task, PARAMS
    )
    parts = [seen.model, seen.views, seen.training, SETTINGS.tasks[wildcards.task]]
    return canonical(plugins.code(set().union(*map(plugin_files, parts))))


def table_plugins() -> str:
    """Hashes of the plugins whose protocols the table shows."""
    return canonical(
        plugins.code(set().union(*map(plugin_files, SETTINGS.tasks.values())))
    )


def all_plugins() -> str:
    """Hashes of every plugin, for DVC, which does not know who uses which."""
    return canonical(plugins.code(map(Path, SETTINGS.plugins)))


@once_per("ablation")
def starting_weights(wildcards) -> list[str]:
    """Returns the weights that a row starts from, or of peers; the stage reports missing ones better than the engine."""
    training = recipe(SETTINGS, wildcards.ablation, PARAMS).training
    peers = [peer.weights for peer in training.peers.given.values() if peer.weights]
    paths = [f"{folder}/model.safetensors" for folder in (*training.weights, *peers)]
    paths += peers
    return [path for path in paths if Path(path).is_file()]
