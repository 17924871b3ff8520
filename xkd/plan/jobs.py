"""The jobs of a run as the engine starts them: what each computes, loads and holds, and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from xkd.data.queue import Queue, bounded
from xkd.params import pretrain_request
from xkd.plan.arithmetic import StepFlops
from xkd.plan.footprint import Memory, memory
from xkd.plan.hardware import Hardware
from xkd.plan.loading import Load, stored, training_load
from xkd.recipe import Recipe
from xkd.settings import Params, TrainingRequest
from xkd.training.build import modalities

# Bytes of a training process (Python, PyTorch, a GPU's driver) and of a loader process, beside batches: rough.
PROCESS, WORKER = 3e9, 0.25e9


@dataclass(frozen=True)
class Phase:
    """A part of a job that goes through clips: training, or one pass without gradients.

    Attributes:
        flops: of all its clips.
        clips: as often as they are loaded.
        load: of one clip.
        batch: clips of a batch in one process.
    """

    flops: float
    clips: float
    load: Load
    batch: int


@dataclass(frozen=True)
class Job:
    """One job of an ablation.

    Attributes:
        name: "pretrain", or the task.
        asked: its resources.
        precision: of the networks.
        phases: one after the other.
        memory: of a process on its GPU.
        workers: loader processes of each process.
        queue_gb: that batches which wait may take, those of all processes on a node together.
        resumes: it goes on from a checkpoint when it is started again.
    """

    name: str
    asked: TrainingRequest
    precision: str
    phases: tuple[Phase, ...]
    memory: Memory
    workers: int
    queue_gb: float
    resumes: bool

    @property
    def gpus(self) -> int:
        """GPUs on each node that it uses, one for each process."""
        return min(self.asked.gpus, self.asked.processes_per_node)

    @property
    def flops(self) -> float:
        """Operations of all phases."""
        return sum(phase.flops for phase in self.phases)

    def hours(self, hardware: Hardware) -> float:
        """Returns how long its arithmetic takes."""
        return self.flops / hardware.speed(self.asked.nodes * self.gpus, self.precision) / 3600

    def queue(self, phase: Phase) -> Queue:
        """Returns the loader processes of each of its processes, and the batches ahead of each."""
        share = self.queue_gb * 1e9 / self.asked.processes_per_node
        return bounded(self.workers, phase.batch * phase.load.bytes, share)

    def loaders(self, phase: Phase) -> int:
        """Returns the cores of a node that load clips: each process takes one, and loads itself without workers."""
        processes = self.asked.processes_per_node
        wanted = processes * self.queue(phase).workers
        return min(wanted, max(self.asked.cpus - processes, 1)) if wanted else processes

    def host_memory(self) -> float:
        """Returns the bytes of main memory on a node."""
        batches = [self.queue(p).batches * p.batch * p.load.bytes for p in self.phases]
        each = PROCESS + self.workers * WORKER + max(batches, default=0)
        return self.asked.processes_per_node * each


def pretraining(params: Params, recipe: Recipe, flops: StepFlops, steps: int, hardware: Hardware) -> Job:
    """Returns the pretraining of an ablation in so many steps of `flops` each."""
    asked, training = pretrain_request(params, recipe.ablation), recipe.training
    if hardware.gpus:
        asked = asked.model_copy(update={"gpus": hardware.gpus, "nodes": 1, "processes": None})
    local_views = recipe.views.local_views if recipe.has_teachers else 0
    load = training_load(recipe, stored(params, recipe.dataset), modalities(recipe), local_views)
    phase = Phase(
        flops=(flops.total + flops.recomputed) * steps,
        clips=training.batch_size * steps,
        load=load,
        batch=training.batch_size // asked.all_processes,
    )
    told = memory(recipe, asked.all_processes)
    phases = (phase,) if steps else ()
    return Job("pretrain", asked, training.precision, phases, told, training.workers, training.queue_gb, resumes=True)
