"""What params.yaml may say, as typed, frozen models: the truth about every key.

Each key's meaning, unit, bounds and source in the paper stands here; defaults are the released setting.
`workflow/schemas/params.schema.json` is generated from these models. Reading a file is `xkd.params`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Upper bounds stand far above what anybody uses: beyond them lies a slip of the finger, or an attempt to break something.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)]
Place = Annotated[
    str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f{}]+$")
]  # Snakemake fills in what stands in braces
Fold = Annotated[str, Field(max_length=100, pattern=r"^[^\s:]+$")]
# It names outputs of Snakemake and of DVC, and stands in commands. No part begins with a dot: not .. either.
Folder = Annotated[
    str, Field(max_length=500, pattern=r"^/?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")
]
Text = Annotated[str, Field(max_length=2000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Size = Annotated[int, Field(ge=1, le=20_000)]
Few = Annotated[int, Field(ge=0, le=1_000)]
Depth = Annotated[int, Field(ge=1, le=1_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Strength = Annotated[float, Field(ge=0, le=100)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Epochs = Annotated[float, Field(ge=0, le=1e6)]
Temperature = Annotated[float, Field(gt=0, le=1000)]
Owners = Annotated[tuple[Literal["student", "teacher"], ...], Field(min_length=1, max_length=2)]
InverseStrengths = Annotated[tuple[Annotated[float, Field(gt=0, le=1e12)], ...], Field(min_length=1, max_length=1000)]
Hue = Annotated[float, Field(ge=0, le=0.5)]
MODALITIES = ("video", "audio")


class Settings(BaseModel):
    """Base of all groups: unknown keys are errors, numbers are finite, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Dataset(Settings):
    """One data set: which it is, where it comes from and how much of it to take."""

    kind: Literal[
        "talking_digits",
        "spoken_digits",
        "ucf101",
        "hmdb51",
        "kinetics400",
        "kinetics_sound",
        "esc50",
        "fsd50k",
        "audioset",
        "folder",
        "manifest",
    ] = Field(
        description="embedded (*_digits), of the paper, or own files: a folder per class, or a CSV that lists them"
    )
    source: Place | None = Field(
        None,
        description="folder: the folder; manifest: the CSV; audioset: a folder of clips; else a local copy (spoken_digits: "
        "the archive) or the address of a mirror, instead of the official place",
    )
    limit: Positive | None = Field(
        None, description="at most this many clips per class and split, always the same ones; for a first try"
    )
    train_clips: Positive = Field(4000, description="clips to make (embedded data sets only)")
    test_clips: Positive = Field(2000, description="clips to make (embedded data sets only)")
    seed: Seed = Field(0, description="seed of the generated clips (embedded data sets only)")
    require: Literal["both", "video", "audio", "any"] | None = Field(
        None,
        description="which streams a clip must have to be usable; others are recorded and left out. By default video for "
        "UCF101 and HMDB51, audio for ESC-50 and FSD50K, both for all others",
    )
    size: Size | None = Field(
        None, description="instead of clips.size, for tasks whose views are larger than those of pretraining"
    )


class Clips(Settings):
    """What a training-ready clip is, after `prepare`."""

    seconds: float = Field(4.0, gt=0, le=3600, description="length of a training clip in seconds (paper: 4)")
    fps: float = Field(8.0, gt=0, le=1000, description="frames per second (paper: 8)")
    size: Size = Field(128, description="shorter side of the prepared picture in pixels")
    sample_rate: int = Field(16000, ge=1, le=1_000_000, description="audio samples per second, mono (paper: 16000)")
    pack: bool = Field(False, description="also keep decoded clips as memory-mapped arrays; for small data sets")
    shortest: float = Field(
        0.0, ge=0, description="seconds that a clip must last to be usable; 0: whatever has a frame or some sound"
    )
    pad: Literal["hold", "loop"] = Field(
        "hold",
        description="how a clip that is shorter than a view fills it; hold: the last frame stays and sound goes silent; "
        "loop: both start again from the beginning",
    )


class Limits(Settings):
    """What one media file may be. Whatever lies outside is left out with the reason; nothing else depends on these."""

    seconds: float = Field(21600.0, gt=0, description="most seconds of a file")
    side: Positive = Field(16384, description="most pixels of either side of a frame")
    aspect: float = Field(16.0, ge=1, description="most pixels of the longer side per pixel of the shorter one")
    apart: float = Field(60.0, ge=0, description="most seconds between the starts of sound and frames")
    fps: tuple[float, float] = Field((0.02, 1000.0), description="lowest and highest frame rate")
    still: float = Field(60.0, gt=0, description="most seconds for which one frame stays")
    sample_rate: tuple[Positive, Positive] = Field((1000, 768000), description="lowest and highest sample rate")
    memory_gb: float = Field(8.0, gt=0, description="most memory that the process which reads a file takes for it")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Limits:
        for name, (low, high) in (("fps", self.fps), ("sample_rate", self.sample_rate)):
            if low > high:
                raise ValueError(f"{name}: {low:g} to {high:g}: the lower bound comes first")
        return self


class LogMel(Settings):
    """Log-mel spectrogram (paper section A.2; released configuration)."""

    n_fft: int = Field(1024, ge=2, le=1_000_000)
    hop: int = Field(143, ge=1, le=1_000_000)
    n_mels: Size = 80
    f_min: float = Field(0.0, ge=0, le=500_000)
    f_max: float = Field(8000.0, gt=0, le=500_000)
    floor: float = Field(1.19e-7, gt=0, description="added to mel power before the logarithm")
    mean: float = Field(-5.3688107, description="subtracted after the logarithm")
    std: float = Field(4.410007, gt=0, description="divided by after the logarithm")

    @model_validator(mode="after")
    def _bands_are_ordered(self) -> LogMel:
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min {self.f_min:g} is not below f_max {self.f_max:g}")
        return self


class VideoView(Settings):
    """One augmented crop of the picture. Defaults: the released global view."""

    frames: Size = 32
    size: Size = Field(112, description="height and width in pixels")
    crop_area: tuple[Fraction, Fraction] = Field(
        (0.2, 1.0), description="random resized crop; equal bounds of 0: plain random crop"
    )
    flip: Fraction = Field(0.5, description="probability of a horizontal flip; 0 where mirroring changes the label")
    jitter: tuple[Strength, Strength, Strength, Hue] = Field(
        (0.4, 0.4, 0.4, 0.2), description="brightness, contrast, saturation, hue"
    )
    grey: Fraction = 0.0
    blur: Fraction = Field(0.0, description="probability of a Gaussian blur, sigma 0.1 to 2")


class AudioView(Settings):
    """One augmented crop of the sound. Defaults: the released global view."""

    frames: Positive = Field(448, description="log-mel frames (columns)")
    volume: Fraction = Field(0.1, description="gain drawn from 1 - volume to 1 + volume")
    resized_crop: bool = Field(False, description="random resized crop of the log-mel (released local view)")


class Views(Settings):
    video_global: VideoView = VideoView()
    video_local: VideoView = VideoView(frames=8, size=96, crop_area=(0.08, 0.4), grey=0.2, blur=0.5)
    audio_global: AudioView = AudioView()
    audio_local: AudioView = AudioView(frames=112, volume=0.2, resized_crop=True)
    local_views: Few = Field(1, description="local views per clip and modality (released: 1; MAS 3)")


class Decoder(Settings):
    width: Size = 384
    depth: Depth = 4
    heads: Size = 12


class Head(Settings):
    hidden: Positive = 2048
    bottleneck: Positive = 256
    out: Positive = 8192


class Model(Settings):
    """Both encoders share these sizes (paper: base, 768/12/12)."""

    width: Size = 768
    depth: Depth = 12
    heads: Size = 12
    video_patch: tuple[Size, Size, Size] = Field((4, 16, 16), description="frames, rows, columns")
    audio_patch: tuple[Size, Size] = Field((4, 16), description="mel bands, time frames")
    positions: Literal["normal", "sincos"] = Field(
        "normal", description="initial positions: N(0, 0.02) (paper) or sine-cosine"
    )
    decoder: Decoder = Decoder()
    head: Head = Head()
    share: Literal["none", "students", "all"] = Field(
        "none", description="XKD, XKD-MAS (one student), XKD-MATS (one student, one teacher)"
    )


class Objective(Settings):
    """What is minimised (paper section 3; weights 5/1/1). A weight of 0 leaves the term out of training."""

    reconstruction: Weight = 5.0
    distillation: Weight = 1.0
    alignment: Weight = 1.0
    reconstruct: tuple[Literal["video", "audio"], ...] = ("video", "audio")
    mask_video: float = Field(0.85, gt=0, lt=1)
    mask_audio: float = Field(0.80, gt=0, lt=1)
    refinement: Literal["mean", "softmax", "none"] = "mean"
    teacher_view: Literal["global", "local"] = Field("global", description="global: paper; local: released code")
    discrepancy: Literal["mmd", "coral"] = "mmd"
    student_temperature: Temperature = 0.1
    teacher_temperature_video: tuple[Temperature, Temperature] = Field(
        (0.1, 0.1), description="first, last (linear warm-up)"
    )
    teacher_temperature_audio: tuple[Temperature, Temperature] = Field(
        (0.07, 0.07), description="first, last (linear warm-up)"
    )
    temperature_warmup_epochs: Epochs = 0
    centre_momentum: Fraction = 0.9


class Training(Settings):
    """The optimiser and its schedules (released configuration).

    Attributes:
        HOW: keys that say how a run is executed, and not what it computes: changing one refuses and repeats nothing.
    """

    HOW: ClassVar = ("accumulate", "checkpoint_activations", "workers", "checkpoint_epochs", "checkpoint_minutes")

    mode: Literal["pretrain", "supervised", "none"] = Field(
        "pretrain", description="none: no training, of random weights (a yardstick) or of given ones"
    )
    weights: tuple[Place, ...] = Field(
        (),
        max_length=2,
        description="folders of trained encoders to start from, one per modality: of import-weights or of another run",
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
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the networks; losses are in float32. float16 scales the loss"
    )
    accumulate: Positive = Field(
        1, description="parts that a batch is processed in, for less memory: the same result up to rounding"
    )
    checkpoint_activations: bool = Field(
        False, description="recompute each block's activations in the backward pass, for less memory: the same result"
    )
    compile: bool = Field(False, description="torch.compile of the transformer blocks; the first steps take minutes")
    workers: Few = Field(0, description="loader processes of each training process; 0 loads in the training process")
    augment: Literal["cpu", "device"] = Field(
        "cpu",
        description="cpu: the loader's workers do it all; device: they cut and resize, and the GPU jitters, blurs and takes "
        "logarithms, with the same draws; for fewer cores per GPU",
    )
    checkpoint_epochs: Positive = Field(10, description="epochs between checkpoints")
    checkpoint_minutes: float = Field(
        15.0, gt=0, le=1e6, description="minutes between checkpoints, within an epoch too"
    )

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Training:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        return self


class Linear(Settings):
    """Probes of frozen features: multinomial logistic regression and kNN."""

    C: InverseStrengths = Field(
        (0.01, 0.1, 1.0, 10.0), description="inverse regularisation; chosen on held-out training clips"
    )
    holdout: float = Field(0.2, gt=0, lt=1, description="part of the training clips that chooses C")
    encoders: Owners = ("student", "teacher")
    neighbours: Positive = 20


class Svm(Settings):
    """Linear support vector machine on frozen features, as the paper probes UCF101, HMDB51 and ESC-50."""

    C: InverseStrengths = Field((1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0), description="inverse regularisation (paper: these)")
    holdout: float = Field(0.2, gt=0, lt=1, description="part of the training clips that chooses C")
    select_on: Literal["train", "test"] = Field(
        "train",
        description="train: C is chosen on held-out training clips; test: on the test clips, as published figures were",
    )
    max_iter: Positive = Field(1000, description="passes of the solver (paper: 1000)")
    encoders: Owners = ("student", "teacher")


class Layer(Settings):
    """Linear layer trained by gradient descent on frozen features, as the paper probes Kinetics400 and FSD50K."""

    epochs: Positive = Field(100, description="paper: 100 on Kinetics400, 50 on FSD50K")
    batch_size: Positive = Field(256, description="paper: 256")
    learning_rate: Rate = Field(0.01, description="paper: 0.01 on Kinetics400, 0.001 on FSD50K")
    schedule: Literal["cosine", "fixed"] = Field("cosine", description="paper: cosine on Kinetics400, fixed on FSD50K")
    warmup: Fraction = Field(0.1, description="share of the steps with a rising learning rate, before the cosine")
    weight_decay: Strength = Field(0.0, description="paper: 0 on Kinetics400, 1e-5 on FSD50K")
    dropout: Fraction = Field(0.0, description="of the feature (paper: 0.3 on FSD50K)")
    encoders: Owners = ("student", "teacher")


class Retrieval(Settings):
    """Search from one modality to the other, by cosine similarity of the projection heads' outputs.

    Encoders without heads are compared by their features: a yardstick, since nothing has made those comparable.
    """

    relevant: Literal["clip", "label"] = Field(
        "clip", description="what counts as found: the clip's own other half, or any test clip with its label"
    )
    encoders: Owners = ("student", "teacher")


class Finetune(Settings):
    """Full finetuning with labels."""

    epochs: Positive = 5
    batch_size: Positive = 64
    learning_rate: Rate = 1e-3
    last_learning_rate: float = Field(0.0, ge=0, le=1000, description="at the end of the cosine (paper: 1e-6, video)")
    schedule: Literal["cosine", "fixed"] = Field("cosine", description="paper: fixed on FSD50K")
    weight_decay: Strength = 0.05
    layer_decay: float = Field(0.75, gt=0, le=1)
    label_smoothing: Fraction = 0.1
    warmup: Fraction = Field(
        0.05, description="share of the steps with a rising learning rate (paper: 5 of 100 epochs)"
    )
    dropout: Fraction = Field(0.0, description="of the feature (paper: 0.5)")
    unit_features: bool = Field(False, description="L2-normalise the feature before the linear layer (paper: audio)")
    mixup: Strength = Field(0.0, description="parameter of the Beta distribution of shares; 0: off (paper: 0.6, video)")
    cutmix: Strength = Field(0.0, description="the same for cutmix, in half of the batches (paper: 0.5, video)")
    erasing: Fraction = Field(0.0, description="probability of erasing a rectangle of a film (paper: 0.25)")
    rand_augment: tuple[Few, Annotated[int, Field(ge=0, le=30)]] = Field(
        (0, 0), description="RandAugment of films: operations, magnitude (paper: 4, 7)"
    )
    mel_masks: tuple[Few, Few] = Field(
        (0, 0), description="SpecAugment: number of masks over mel bands, most bands of one (paper: 2, 10)"
    )
    time_masks: tuple[Few, Few] = Field(
        (0, 0), description="SpecAugment: number of masks over columns, most columns of one (paper: 2, 20)"
    )
    time_warp: Few = Field(0, description="SpecAugment: most columns that a point of the log-mel is moved by; 0: off")


ProtocolSettings = Linear | Svm | Layer | Retrieval | Finetune


class Evaluate(Settings):
    batch_size: Positive = Field(128, description="clips per forward pass without gradients; changes speed only")
    linear: Linear = Linear()
    svm: Svm = Svm()
    layer: Layer = Layer()
    retrieval: Retrieval = Retrieval()
    finetune: Finetune = Finetune()


class Task(Settings):
    """Columns of the table: a protocol on a data set."""

    protocol: Literal["linear", "svm", "layer", "retrieval", "finetune"]
    dataset: Name | None = Field(None, description="labelled data set; by default that of pretraining")
    ablations: tuple[Name, ...] | None = Field(
        None, description="rows that get it; by default all whose encoders it can judge"
    )
    modalities: tuple[Literal["video", "audio"], ...] = Field(
        ("video", "audio"), min_length=1, description="encoders to judge"
    )
    folds: tuple[Fold, ...] = Field((), description="official folds to average over; none: the column split")
    clips: Positive = Field(
        1, description="clips of an item at test time, evenly spaced; scores are averaged (paper: 3)"
    )
    crops: Literal[1, 3] = Field(1, description="crops of a picture at test time, along its longer side (paper: 3)")
    train_clips: Positive = Field(
        1, description="augmented clips per training item for probes (paper: 25 video, 100 audio); 1: one plain clip"
    )
    views: dict[str, Any] = Field(
        default_factory=dict,
        description="what differs from the run's views video_global and audio_global, e.g. size: 224 (paper, finetuning)",
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="settings of evaluate.<protocol> that differ here"
    )


class Report(Settings):
    baseline: Name = Field("ae", description="ablation that differences are taken against")
    decimals: Annotated[int, Field(ge=0, le=4)] = 1


class Request(Settings):
    """What one job of a stage asks of the machine or of a cluster's scheduler. It changes results by rounding at most."""

    cpus: Positive = Field(1, description="processor cores (per node)")
    memory_gb: float = Field(4.0, gt=0, le=1e6, description="main memory in GB (per node)")
    runtime: Positive = Field(60, description="time limit in minutes, for schedulers that set one")


class GpuRequest(Request):
    gpus: Few = Field(0, description="GPUs (per node)")


class PretrainRequest(GpuRequest):
    nodes: Size = Field(1, description="machines; more than one needs SLURM")
    processes: Size | None = Field(
        None, description="training processes per node, which share each batch; by default one per GPU, at least one"
    )

    @property
    def processes_per_node(self) -> int:
        return self.processes or max(self.gpus, 1)

    @property
    def all_processes(self) -> int:
        return self.nodes * self.processes_per_node


class Resources(Settings):
    """What the jobs of each stage ask for; an edit reruns nothing."""

    download: Request = Request()
    prepare: Request = Request()
    pretrain: PretrainRequest = PretrainRequest()
    evaluate: GpuRequest = GpuRequest()
    table: Request = Request()


class Ablation(Settings):
    """A row of the table: what it asks, where the paper asks it, and what differs from the base."""

    hypothesis: Text = Field(min_length=1)
    paper: Text | None = Field(None, description="`method` of xkd/report/paper_results.csv for the same row")
    paper_table: Text = Field("", description="the table of the paper that this row mirrors")
    changes: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ: groups model, objective, training, views"
    )


class Base(Settings):
    """What a pretraining job depends on."""

    dataset: Name
    clips: Clips
    logmel: LogMel
    views: Views
    model: Model
    objective: Objective
    training: Training


class Params(Base):
    """The whole of params.yaml."""

    extends: Place | None = Field(
        None, description="another settings file (relative to this one) that this one changes; null removes a key"
    )
    results: Folder = Field(
        "results",
        description="folder of the table, figures and report: letters, digits and . _ - in each part, and none of the folders "
        "that hold something else, such as data or runs",
    )
    seeds: tuple[Seed, ...] = Field(min_length=1)
    datasets: dict[Name, Dataset]
    limits: Limits = Limits()
    evaluate: Evaluate
    tasks: dict[Name, Task] = Field({"linear": Task(protocol="linear")}, min_length=1)
    report: Report
    resources: Resources = Resources()
    ablations: dict[Name, Ablation]


class Recipe(Base):
    """The effective settings of one pretraining job: the base with one ablation's changes merged in."""

    ablation: Name

    @property
    def has_teachers(self) -> bool:
        """Distillation and alignment need heads, local views and teachers; reconstruction alone does not."""
        return self.training.mode == "pretrain" and bool(self.objective.distillation or self.objective.alignment)

    @property
    def modalities(self) -> tuple[str, ...] | None:
        """What a run trains, video first; None where that follows from encoders that it is given.

        Where nothing is distilled or aligned, `objective.reconstruct` names them, for the yardsticks too.
        """
        if self.training.mode == "none" and self.training.weights:
            return None
        if self.has_teachers:
            return MODALITIES
        return tuple(m for m in MODALITIES if m in self.objective.reconstruct) or MODALITIES

    @property
    def grids(self) -> dict[str, tuple[int, ...]]:
        """Patches of each modality's global view along each axis: frames, rows, columns; mel bands, steps of time."""
        video, audio = self.views.video_global, self.views.audio_global
        frames, rows, columns = self.model.video_patch
        bands, steps = self.model.audio_patch
        return {
            "video": (video.frames // frames, video.size // rows, video.size // columns),
            "audio": (self.logmel.n_mels // bands, audio.frames // steps),
        }

    @property
    def reconstructed(self) -> tuple[str, ...]:
        """The modalities that get a decoder."""
        reconstructs = self.training.mode == "pretrain" and self.objective.reconstruction > 0
        return self.objective.reconstruct if reconstructs else ()

    @model_validator(mode="after")
    def _patches_tile_views(self) -> Recipe:
        frames, rows, columns = self.model.video_patch
        bands, steps = self.model.audio_patch
        for name in ("video_global", "video_local"):
            view = getattr(self.views, name)
            if view.frames % frames or view.size % rows or view.size % columns:
                raise ValueError(f"views.{name} ({view.frames} x {view.size}) is not a multiple of model.video_patch")
        for name in ("audio_global", "audio_local"):
            if getattr(self.views, name).frames % steps or self.logmel.n_mels % bands:
                raise ValueError(f"views.{name} or logmel.n_mels is not a multiple of model.audio_patch")
        for width, heads in (
            (self.model.width, self.model.heads),
            (self.model.decoder.width, self.model.decoder.heads),
        ):
            if width % heads:
                raise ValueError(f"model width {width} is not a multiple of its {heads} heads")
        return self

    @model_validator(mode="after")
    def _some_patches_stay_visible(self) -> Recipe:
        for modality, grid in self.grids.items() if self.training.mode == "pretrain" else ():
            patches = math.prod(grid)
            ratio = getattr(self.objective, f"mask_{modality}")
            if not 0 < round(patches * (1 - ratio)) < patches:
                left = "hides none" if ratio < 0.5 else "leaves none visible"
                raise ValueError(f"objective.mask_{modality}: {ratio:g} of {patches} patches {left}")
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        objective = self.objective
        reconstructs = objective.reconstruction and objective.reconstruct
        if not (reconstructs or objective.distillation or objective.alignment):
            raise ValueError("objective: every term is switched off; set training.mode to none for random weights")
        if objective.teacher_view == "local" and not self.views.local_views:
            raise ValueError("objective.teacher_view is local, but views.local_views is 0")
        return self
