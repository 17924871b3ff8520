"""What will not work as planned: jobs that starve, exceed their memory, or do not fit their time limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xkd.plan.hardware import Hardware
from xkd.plan.jobs import Job, Phase

USABLE = 0.92  # of a GPU's memory: the driver and fragments take the rest


@dataclass(frozen=True)
class Concern:
    """A warning.

    Attributes:
        kind: "starves", "exceeds memory of the GPU", "exceeds memory of the node", "does not fit its time limit".
        job: its name.
        message: what was compared, and what to change.
        excess: how far the bound is exceeded, as a ratio.
    """

    kind: str
    job: str
    message: str
    excess: float


def concerns(job: Job, hardware: Hardware, loader_factor: float = 1.0) -> Iterator[Concern]:
    """Yields what is wrong with a job; nothing about GPUs where it asks for none.

    Args:
        loader_factor: how much faster the loader is than estimated.
    """
    if job.gpus:
        yield from (found for phase in job.phases for found in _starves(job, phase, hardware, loader_factor))
        yield from _exceeds_gpu(job, hardware)
        yield from _exceeds_time(job, hardware)
    yield from _exceeds_host(job)


def phase_rates(job: Job, phase: Phase, hardware: Hardware, loader_factor: float) -> dict[str, float]:
    """Returns the clips per second that the GPUs of a node take, and those that its cores load."""
    return {
        "clips_per_second": hardware.speed(job.gpus, job.precision) * phase.clips / phase.flops if phase.flops else 0.0,
        "loaded_per_second": job.loaders(phase) * loader_factor / phase.load.seconds,
    }


def grouped(found: dict[str, list[Concern]]) -> list[dict[str, object]]:
    """Groups the warnings of ablations by job and kind; each group tells the worst one, and names its ablation first."""
    groups: dict[tuple[str, str], list[tuple[str, Concern]]] = {}
    for ablation, concerns in found.items():
        for concern in concerns:
            groups.setdefault((concern.job, concern.kind), []).append((ablation, concern))
    return [_group(members) for members in groups.values()]


def _group(members: Iterable[tuple[str, Concern]]) -> dict[str, object]:
    first, worst = max(members, key=lambda member: member[1].excess)
    ablations = dict.fromkeys([first, *(ablation for ablation, _ in members)])
    return {"job": worst.job, "kind": worst.kind, "ablations": [*ablations], "message": worst.message}


def _starves(job: Job, phase: Phase, hardware: Hardware, loader_factor: float) -> Iterator[Concern]:
    rates, loaders = phase_rates(job, phase, hardware, loader_factor), job.loaders(phase)
    takes, loads = rates["clips_per_second"], rates["loaded_per_second"]
    if takes <= loads:
        return
    message = (
        f"{job.gpus} {'GPU takes' if job.gpus == 1 else 'GPUs take'} {takes:,.0f} clips/s, and {loaders} "
        f"{'core loads' if loaders == 1 else 'cores load'} {loads:,.0f} ({loads / loaders:.3g} each); "
        f"{' or '.join(_remedies(job, phase))}"
    )
    yield Concern("starves", job.name, message, takes / loads)


def _remedies(job: Job, phase: Phase) -> list[str]:
    """Names settings that load faster."""
    found = []
    if job.queue(phase).workers < job.workers:
        found.append("raise training.queue_gb or lower the batch, so that all loader processes start")
    elif job.workers * job.asked.processes_per_node < job.asked.cpus - job.asked.processes_per_node:
        found.append("raise training.workers")
    else:
        found.append("raise cpus and training.workers")
    if phase.load.augments:
        found.append("set training.augment to device")
    if phase.load.encoded:
        found.append("pack decoded clips")
    return found


def _exceeds_gpu(job: Job, hardware: Hardware) -> Iterator[Concern]:
    if hardware.memory and job.memory.total > USABLE * hardware.memory:
        message = (
            f"a process needs {job.memory.total / 1e9:,.0f} GB of its GPU's {hardware.memory / 1e9:.0f} GB "
            f"({job.memory.activations / 1e9:,.0f} GB are activations); set precision, accumulate or "
            "checkpoint_activations"
        )
        yield Concern("exceeds memory of the GPU", job.name, message, job.memory.total / hardware.memory)


def _exceeds_host(job: Job) -> Iterator[Concern]:
    needed, there = job.host_memory(), job.asked.memory_gb * 1e9
    if needed > there:
        message = (
            f"batches that wait and {job.asked.processes_per_node} x (1 + {job.workers}) processes need "
            f"{needed / 1e9:,.0f} GB of main memory, memory_gb is {job.asked.memory_gb:g}; raise it, or lower "
            "training.queue_gb or training.workers"
        )
        yield Concern("exceeds memory of the node", job.name, message, needed / there)


def _exceeds_time(job: Job, hardware: Hardware) -> Iterator[Concern]:
    hours, limit = job.hours(hardware), job.asked.runtime / 60
    if hours > limit:
        restarts = math.ceil(hours / limit) - 1
        then = (
            f"it needs {restarts} restart{'s' * (restarts > 1)}, each from its checkpoint (retries of the profile)"
            if job.resumes
            else "it begins again at each restart"
        )
        message = f"{hours:,.1f} h of arithmetic, runtime is {limit:,.3g} h; {then}; raise runtime or gpus"
        yield Concern("does not fit its time limit", job.name, message, hours / limit)
