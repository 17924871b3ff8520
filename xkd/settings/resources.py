"""Settings of what jobs ask of a machine or of a scheduler."""

from __future__ import annotations

from pydantic import Field

from xkd.settings.base import Few, Positive, Settings, Size


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


class PretrainRequest(GpuRequest):
    """The resources of pretraining, on one machine or several."""

    nodes: Size = Field(1, description="machines; more than one needs SLURM")
    processes: Size | None = Field(
        None, description="training processes per node, which share each batch; by default one per GPU, at least one"
    )
    protect: bool = Field(
        False, description="write-protect finished runs: what would train them again is refused (docs/long-runs.md)"
    )

    @property
    def processes_per_node(self) -> int:
        return self.processes or max(self.gpus, 1)

    @property
    def all_processes(self) -> int:
        return self.nodes * self.processes_per_node


class Resources(Settings):
    """The resources of each stage's jobs; an edit reruns nothing."""

    download: Request = Request()
    prepare: Request = Request()
    pretrain: PretrainRequest = PretrainRequest()
    evaluate: GpuRequest = GpuRequest()
    table: Request = Request()
