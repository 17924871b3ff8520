"""workflow/presets/paper.yaml in miniature: its data sets, tasks and folds, with tiny networks and a few clips.

Snakemake plans the jobs, and their commands run in this process one after the other: a process each would take minutes.
"""

import re
import shlex
from contextlib import chdir
from pathlib import Path

import official
from engine_project import ROOT, Project
from media_files import write_media

from xkd import cli

KINDS = ("kinetics400", "ucf101", "hmdb51", "esc50", "fsd50k")  # those that are downloaded
ROWS = ("xkd", "ae")
FILMS, SOUNDS = 12, 30  # so many that no two test clips of a fold are equal: equal scores have no order
PRESET = ROOT / "workflow" / "presets" / "paper.yaml"
IN_PROCESS = {"ae": {"changes": {"training": {"workers": 0}}}}  # the presets give this row loader processes of its own
VIEWS = {
    "video_global": {"frames": 8, "size": 32},
    "video_local": {"frames": 4, "size": 16},
    "audio_global": {"frames": 112},
    "audio_local": {"frames": 32},
}
MODEL = {
    "width": 24, "depth": 1, "heads": 2, "video_patch": [4, 8, 8], "audio_patch": [20, 16],
    "decoder": {"width": 24, "depth": 1, "heads": 2}, "head": {"hidden": 16, "bottleneck": 8, "out": 32},
}  # fmt: skip


class PaperProject(Project):
    """A copy of the project whose params.yaml extends paper.yaml; `jobs` are those that Snakemake planned."""

    def __init__(self, root: Path, address: str) -> None:
        super().__init__(root, standins=False)
        self.write(settings(self.settings(PRESET), address))
        done = self.snakemake("--dry-run", "--printshellcmds")
        assert done.returncode == 0, done.stdout + done.stderr
        said = re.sub(r" > \S+ 2>&1$", "", done.stdout + done.stderr, flags=re.MULTILINE)
        self.jobs = [shlex.split(command) for command in re.findall(r" -m xkd (.*)", said)]

    def run_here(self) -> None:
        """Runs the jobs in the order of the plan."""
        with chdir(self.root):
            for job in self.jobs:
                cli.cli.main(job, standalone_mode=False)


def settings(preset: dict, address: str) -> dict:
    """Settings that change what costs time in paper.yaml, and take its archives from a server."""
    smaller = {name: {"size": 64} for name, entry in preset["datasets"].items() if "size" in entry}
    rows = {*Project.settings(None, ROOT / "params.yaml")["ablations"], *preset["ablations"]}
    few = {"epochs": 2, "batch_size": 8, "warmup_epochs": 0, "workers": 0}
    return {
        "extends": str(PRESET),
        "datasets": {kind: {"kind": kind, "source": f"{address}/{kind}"} for kind in KINDS} | smaller,
        "clips": {"seconds": 1, "size": 32},
        "views": VIEWS,
        "model": MODEL,
        "training": few,
        "tasks": {name: smaller_task(task) for name, task in preset["tasks"].items() if task},
        "ablations": dict.fromkeys(rows - set(ROWS)) | IN_PROCESS,
    }


def smaller_task(task: dict) -> dict:
    """What a task does less of; its protocol, data set and folds stay those of paper.yaml."""
    epochs = {"epochs": 2, "batch_size": 8} if task["protocol"] in ("layer", "finetune") else {}
    clips = {"train_clips": 2} if "train_clips" in task else {}
    views = {"video_global": {"size": 48}} if "video_global" in task.get("views", {}) else {}
    rows = {"ablations": ["xkd"]} if task["protocol"] == "finetune" else {}  # the paper finetunes no other row of ours
    return clips | rows | {"changes": epochs, "views": views}


def sites(folder: Path) -> dict[str, int]:
    """Writes each data set as its official server has it into a folder of its kind; returns how many clips it lists."""
    media = official.Media(folder, write_media, FILMS, SOUNDS)
    found = {}
    for kind in KINDS:
        (folder / kind).mkdir()
        found[kind] = getattr(official, kind)(folder / kind, media)
    return found
