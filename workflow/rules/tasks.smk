"""Functions of the rules that evaluate runs and make the table."""

@once_per("task")
def task_settings(wildcards) -> str:
    """Returns the settings of a task, without its list of ablations, which decides what runs but not the results."""
    task = SETTINGS.tasks[wildcards.task].model_dump(
        mode="json", exclude={"ablations", "dataset", "changes"}
    )
    settings = protocol(SETTINGS, wildcards.task, PARAMS)
    decisive = {
        "task": task,
        "protocol": settings.model_dump(mode="json", exclude=set(settings.HOW)),
    }
    if isinstance(settings, FrozenSettings):
        decisive["precision"] = SETTINGS.evaluate.precision
    return canonical(decisive)


@once_per("task")
def feature_settings(wildcards) -> str:
    """Returns the settings that decide the features of a task."""
    task = SETTINGS.tasks[wildcards.task].model_dump(mode="json")
    names = ("modalities", "folds", "clips", "crops", "train_clips", "views")
    encoders = protocol(SETTINGS, wildcards.task, PARAMS).encoders
    decisive = {"precision": SETTINGS.evaluate.precision, "encoders": encoders}
    return canonical(decisive | {name: task[name] for name in names})


def task_features(wildcards) -> list[str]:
    """Returns the file that says that the features of a task are there, where a job of their own extracts them."""
    frozen = isinstance(protocol(SETTINGS, wildcards.task, PARAMS), FrozenSettings)
    return [FEATURES] if SETTINGS.resources.features and frozen else []


def used_manifests() -> list[str]:
    """Returns the manifests of the data sets of the table, of all rows and of all tasks."""
    return [f"data/{name}/manifest.csv" for name in datasets_in_use(SETTINGS)]


def task_manifest(wildcards) -> str:
    return f"data/{task_dataset(SETTINGS, wildcards.task)}/manifest.csv"


def task_shards(wildcards) -> list[str]:
    return shards_of(task_dataset(SETTINGS, wildcards.task))


def table_settings(wildcards) -> str:
    """Returns the settings that the table states: all but limits and resources, with kind and limit of each data set."""
    hidden = {"datasets": True, "limits": True, "resources": True}
    settings = SETTINGS.model_dump(
        mode="json", exclude=hidden | {"ablations": {"__all__": {"resources"}}}
    )
    datasets = {
        name: {"kind": entry.kind, "limit": entry.limit}
        for name, entry in SETTINGS.datasets.items()
    }
    points = [asdict(point) for point in SETTINGS.points]
    return canonical(settings | {"datasets": datasets, "points": points})


def evaluations(ablation: str) -> list[str]:
    """Returns the results of an ablation that the settings ask for, over all seeds."""
    return expand(
        f"{EVALUATION}.json",
        ablation=ablation,
        seed=SETTINGS.seeds,
        task=tasks_of(SETTINGS, ablation),
    )


def sweep_figure() -> dict:
    """Returns the figure of sweeps as an output of the table, where there are sweeps."""
    if not SETTINGS.sweeps:
        return {}
    return {
        "sweeps": report(
            f"{SETTINGS.results}/figures/sweeps.png",
            caption="../report/sweeps.rst",
            category="Figures",
            labels={"shows": "sweeps over settings"},
        )
    }
