"""Stage `features`: extracts the frozen features that a task needs, so that its evaluation needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xkd.errors import UserError
from xkd.files import check_output, files_in, read_json, write_json
from xkd.settings import FrozenSettings, Params
from xkd.stages.evaluate import open_job


def run(params: Params, manifest: Path, run: Path, task: str, out: Path, force: bool = False) -> None:
    """Fills the store of features, and writes `out`, which says where they lie and what they were made of.

    Features that are there already are not extracted again, and an interrupted extraction goes on where it stopped.

    Args:
        params: settings; groups `evaluate` and `tasks` are used.
        manifest, run, task: as of `xkd.stages.evaluate.run`.
        out: a JSON file.
        force: another file of this name may be replaced.

    Raises:
        UserError: as of `xkd.stages.evaluate.run`, or the task trains encoders.
    """
    job = open_job(params, manifest, run, task)
    if not isinstance(job.settings, FrozenSettings):
        raise UserError(
            f"task '{task}': protocol '{job.task.protocol}' trains the encoders and uses no frozen features"
        )
    identity = {"dataset": job.dataset, "ablation": job.recipe.ablation, "seed": job.seed, "task": task}
    check_output(out, [manifest, *files_in(run)], force, _identity(out) == identity)
    parts = []
    for split, augmented in job.passes:
        clips = job.features(split, augmented)
        origins = {".".join(key): job.origin(key, augmented) for key in clips.outputs}
        parts.append({"folder": str(job.folder(split, augmented)), "clips": len(clips.ids), "origins": origins})
    write_json(out, identity | {"features": parts}, sealed=True)


def _identity(out: Path) -> dict[str, Any]:
    """Reads whose features an earlier file is about; empty where there is none."""
    try:
        return {key: value for key, value in read_json(out).items() if key != "features"}
    except (OSError, ValueError):
        return {}
