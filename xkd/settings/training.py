"""Settings of the optimiser and of how a run is executed."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from xkd.settings.base import Epochs, Few, Fraction, Momentum, Place, Positive, Rate, Settings, Strength
from xkd.settings.peers import Peers


class Execution(Settings):
    """How steps are taken, in every training: pretraining, supervised, finetuning."""

    HOW: ClassVar[tuple[str, ...]] = ("accumulate", "checkpoint_activations", "skip_budget")

    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    base_batch_size: Positive | None = Field(
        None,
        description="learning_rate is for batches of this size, and scales linearly with batch_size; null: it is taken "
        "as it is",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the networks; losses are in float32. float16 scales the loss"
    )
    accumulate: Positive = Field(
        1, description="parts that a batch is processed in, for less memory: the same result up to rounding"
    )
    checkpoint_activations: bool = Field(
        False, description="recompute each block's activations in the backward pass, for less memory: the same result"
    )
    compile: bool = Field(
        False, description="torch.compile of whole encoders and decoders; the first steps take minutes"
    )
    exchange: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision in which processes exchange gradients; bfloat16 halves what they send"
    )
    skip_budget: Fraction = Field(
        0.001,
        description="share of a run's steps that may be left out since a loss or gradient is not finite; a run with "
        "more of them ends with the names of the clips. Under 1000 steps, the default allows none",
    )

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate, for batches of `batch_size` clips."""
        return self.learning_rate * (self.batch_size / self.base_batch_size if self.base_batch_size else 1.0)

    @property
    def learning_rate_rule(self) -> str:
        """Says where the highest learning rate comes from, for batches of `batch_size` clips."""
        rule = f", times {self.batch_size} / {self.base_batch_size} clips" if self.base_batch_size else " as set"
        return f"learning rate {self.peak_learning_rate:g}: {self.learning_rate:g}{rule}"

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        return self


class Training(Execution):
    """The optimiser and its schedules (released configuration)."""

    HOW: ClassVar[tuple[str, ...]] = (
        *Execution.HOW,
        "cuda_graphs",
        "workers",
        "queue_gb",
        "stage_to",
        "checkpoint_epochs",
        "checkpoint_minutes",
        "probe_epochs",
        "keep_encoders",
    )

    mode: Literal["pretrain", "supervised", "none"] = Field(
        "pretrain", description="none: no training, of random weights (a yardstick) or of given ones"
    )
    weights: tuple[Place, ...] = Field(
        (),
        max_length=2,
        description="folders of trained encoders to start from, one per modality: of import-weights or of another run",
    )
    peers: Peers = Field(
        Peers(), description="encoders of other libraries or plugins, which a row with `mode: none` is judged with"
    )
    epochs: Positive = 800
    batch_size: Positive = 256
    learning_rate: Rate = 1e-4
    warmup_epochs: Epochs = 30
    weight_decay: Strength = 0.3
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)
    clip_gradient: float = Field(0.3, gt=0, le=1e6, description="norm limit of each student tensor on its own")
    ema: tuple[Fraction, Fraction] = Field((0.997, 1.0), description="teacher momentum, first to last (cosine)")
    freeze_last_layer_epochs: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    cuda_graphs: bool = Field(
        True,
        description="launch all kernels of a step at once, since Python launches them more slowly than a fast GPU runs "
        "them; for one GPU alone, without plugins, float16 and checkpoint_activations. The same result up to rounding",
    )
    workers: Few = Field(0, description="loader processes of each training process; 0 loads in the training process")
    queue_gb: float = Field(
        32.0,
        gt=0,
        le=1e6,
        description="memory in GB for batches that wait, of all training processes on a machine; fewer wait, and fewer "
        "loader processes start, where they do not fit",
    )
    augment: Literal["cpu", "device"] = Field(
        "cpu",
        description="cpu: the loader's workers do it all; device: they cut and resize, and the GPU jitters, blurs and "
        "takes logarithms, with the same draws; for fewer cores per GPU",
    )
    shuffle_window: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        0,
        description="shuffle about this many clips at a time, so that few shards are read at a time; 0: all clips",
    )
    stage_to: Place | None = Field(
        None,
        description="folder on a local disk to which shards are copied before training, e.g. $TMPDIR/xkd; environment "
        "variables are replaced",
    )
    checkpoint_epochs: Positive = Field(10, description="epochs between checkpoints")
    checkpoint_minutes: float = Field(
        15.0, gt=0, le=1e6, description="minutes between checkpoints, within an epoch too"
    )
    probe_epochs: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        0,
        description="epochs between kNN probes of the encoders, as columns of history.csv; 0: none (docs/long-runs.md)",
    )
    keep_encoders: bool = Field(
        False, description="keep the encoders of each probe, in checkpoints/<run>/epoch<number>/encoders"
    )

    @property
    def given(self) -> bool:
        """Says if a run starts from encoders that were trained elsewhere."""
        return bool(self.weights or self.peers.given)

    @model_validator(mode="after")
    def _peers_are_not_trained(self) -> Self:
        if self.peers.given and (self.mode != "none" or self.weights):
            raise ValueError("peers are judged as they are: set mode to none, and no weights")
        return self

    @model_validator(mode="after")
    def _encoders_are_kept_by_probes(self) -> Self:
        if self.keep_encoders and not self.probe_epochs:
            raise ValueError("keep_encoders keeps the encoders of probes; set probe_epochs, too")
        return self
