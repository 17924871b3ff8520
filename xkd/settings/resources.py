"""Settings of what jobs ask of a machine or of a scheduler."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xkd import registry
from xkd.settings.base import Few, Known, Positive, Settings, Size


class Request(Settings):
    """The resources that one job of a stage asks of the machine or of a cluster's scheduler.

    It changes results by rounding at most.
    """

    cpus: Positive = Field(1, description="processor cores (per node)")
    memory_gb: float = Field(4.0, gt=0, le=1e6, description="main memory in GB (per node)")
    runtime: Positive = Field(60, description="time limit in minutes, for schedulers that set one")


class GpuRequest(Request):
    """The resources of a stage that can use GPUs."""

    gpus: Few = Field(0, description="GPUs (per node)")


class TrainingRequest(GpuRequest):
    """The resources of a job whose processes share each batch, on one machine or several."""

    nodes: Size = Field(1, description="machines; more than one needs SLURM")
    processes: Size | None = Field(
        None, description="training processes per node, which share each batch; by default one per GPU, at least one"
    )

    def changed(self, changes: TrainingRequest | None) -> TrainingRequest:
        """Returns the same with the values that `changes` sets; its others are defaults."""
        return self.model_copy(update=changes.model_dump(exclude_unset=True) if changes else {})

    @property
    def processes_per_node(self) -> int:
        return self.processes or max(self.gpus, 1)

    @property
    def all_processes(self) -> int:
        return self.nodes * self.processes_per_node


class PretrainRequest(TrainingRequest):
    """The resources of pretraining, and what becomes of finished runs."""

    protect: bool = Field(
        False, description="write-protect finished runs: what would train them again is refused (docs/long-runs.md)"
    )


class Resources(Settings):
    """The resources of each stage's jobs; an edit reruns nothing."""

    download: Request = Request()
    prepare: Request = Request()
    pack: Request = Request()
    pretrain: PretrainRequest = PretrainRequest()
    features: GpuRequest | None = Field(
        None, description="where set, frozen features are extracted in a job of their own; evaluations then use the CPU"
    )
    evaluate: GpuRequest = Field(GpuRequest(), description="of every evaluation, whatever its protocol")
    protocols: dict[Annotated[str, Known(registry.protocols)], TrainingRequest] = Field(
        default_factory=dict, max_length=100, description="values that differ from `evaluate` for one protocol"
    )
    table: Request = Request()

    def of_protocol(self, name: str) -> TrainingRequest:
        """Returns what an evaluation by a protocol asks for; one process where the protocol cannot share batches."""
        own, alone = self.protocols.get(name), {} if registry.protocols[name].shares_batches else {"processes": 1}
        return TrainingRequest(**self.evaluate.model_dump()).changed(own).model_copy(update=alone)
