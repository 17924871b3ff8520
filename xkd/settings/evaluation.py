"""Settings of the evaluation protocols, and of tasks: a protocol on a data set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from xkd import registry
from xkd.settings.base import (
    Few,
    Fold,
    Fraction,
    InverseStrengths,
    Known,
    Name,
    Open,
    Owners,
    Positive,
    Rate,
    Settings,
    Strength,
)
from xkd.settings.training import Execution

MOST_SHOTS = 100


class FrozenSettings(Settings):
    """Base of the settings of protocols on frozen features."""

    encoders: Owners = ("student", "teacher")


class FittedSettings(FrozenSettings):
    """Base of the settings of linear classifiers that a solver fits to the optimum."""

    holdout: float = Field(0.2, gt=0, lt=1, description="part of the training clips that chooses C")
    solver: Literal["auto", "sklearn", "torch"] = Field(
        "auto",
        description="sklearn: scikit-learn, on the CPU; torch: Newton's method for all classes at once, on the GPU if "
        "there is one; auto: torch if examples * features * classes exceed 1e8. The optimum is the same",
    )


class Linear(FittedSettings):
    """Probes of frozen features: multinomial logistic regression and kNN."""

    C: InverseStrengths = Field(
        (0.01, 0.1, 1.0, 10.0), description="inverse regularisation; chosen on held-out training clips"
    )
    neighbours: Positive = 20


class FewShot(FrozenSettings):
    """Logistic regression of frozen features with few labels, drawn several times."""

    shots: tuple[Annotated[int, Field(ge=1, le=MOST_SHOTS)], ...] = Field(
        (1, 5, 10), min_length=1, max_length=MOST_SHOTS, description="training clips of each class; a column for each"
    )
    draws: int = Field(
        20,
        ge=2,
        le=1000,
        description="draws of these clips, the same for all rows and seeds; figures are means over draws",
    )
    C: float = Field(1.0, gt=0, le=1e12, description="inverse regularisation; too few clips to choose it")


class Svm(FittedSettings):
    """Linear support vector machine on frozen features, as the paper probes UCF101, HMDB51 and ESC-50."""

    C: InverseStrengths = Field((1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0), description="inverse regularisation (paper: these)")
    select_on: Literal["train", "test"] = Field(
        "train",
        description="train: C is chosen on held-out training clips; test: on the test clips, as published figures were",
    )
    max_iter: Positive = Field(1000, description="passes of the solver (paper: 1000)")


class Layer(FrozenSettings):
    """Linear layer trained by gradient descent on frozen features, as the paper probes Kinetics400 and FSD50K."""

    epochs: Positive = Field(100, description="paper: 100 on Kinetics400, 50 on FSD50K")
    batch_size: Positive = Field(256, description="paper: 256")
    learning_rate: Rate = Field(0.01, description="paper: 0.01 on Kinetics400, 0.001 on FSD50K")
    schedule: Literal["cosine", "fixed"] = Field("cosine", description="paper: cosine on Kinetics400, fixed on FSD50K")
    warmup: Fraction = Field(0.1, description="share of the steps with a rising learning rate, before the cosine")
    weight_decay: Strength = Field(0.0, description="paper: 0 on Kinetics400, 1e-5 on FSD50K")
    dropout: Fraction = Field(0.0, description="of the feature (paper: 0.3 on FSD50K)")


class Attentive(FrozenSettings):
    """Attentive probe: learned queries attend to frozen patch tokens, and a linear layer classifies what they gather.

    Tokens are extracted once and kept on disk as float16: patches * width * 2 bytes for each view of a clip and encoder
    (0.6 MB of a video for the paper's ViT-B, 6 KB for the default networks); each epoch reads them all.
    """

    queries: int = Field(1, ge=1, le=64, description="for each modality, side by side before the linear layer")
    epochs: Positive = Field(60, description="of several augmented clips (train_clips) each epoch takes the next one")
    batch_size: Positive = 32
    learning_rate: Rate = 1e-3
    schedule: Literal["cosine", "fixed"] = "cosine"
    warmup: Fraction = Field(0.1, description="share of the steps with a rising learning rate, before the cosine")
    weight_decay: Strength = 0.01


class Retrieval(FrozenSettings):
    """Search from one modality to the other, by cosine similarity of the projection heads' outputs.

    Encoders without heads are compared by their features: a yardstick, since nothing has made those comparable.
    """

    relevant: Literal["clip", "label"] = Field(
        "clip",
        description="what counts as found: the clip's own other modality, or that of any test clip with its label",
    )


class Finetune(Execution):
    """Full finetuning with labels; `batch_size` is that of all processes together."""

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
    mixup: Strength = Field(
        0.0, description="parameter of the Beta distribution of mixing weights; 0: off (paper: 0.6, video)"
    )
    cutmix: Strength = Field(0.0, description="the same for cutmix, in half of the batches (paper: 0.5, video)")
    erasing: Fraction = Field(0.0, description="probability of erasing a rectangle of a video (paper: 0.25)")
    rand_augment: tuple[Few, Annotated[int, Field(ge=0, le=30)]] = Field(
        (0, 0), description="RandAugment of videos: operations, magnitude (paper: 4, 7)"
    )
    mel_masks: tuple[Few, Few] = Field(
        (0, 0), description="SpecAugment: number of masks over mel bands, most bands of one (paper: 2, 10)"
    )
    time_masks: tuple[Few, Few] = Field(
        (0, 0), description="SpecAugment: number of masks over columns, most columns of one (paper: 2, 20)"
    )
    time_warp: Few = Field(0, description="SpecAugment: most columns that a point of the log-mel is moved by; 0: off")


class Evaluate(Open):
    """Settings of each protocol."""

    REGISTRY = registry.protocols

    batch_size: Positive = Field(128, description="clips per forward pass without gradients; changes speed only")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of frozen encoders, under autocast; where it is not float32, features are kept as float16",
    )
    linear: Linear = Linear()
    few_shot: FewShot = FewShot()
    svm: Svm = Svm()
    layer: Layer = Layer()
    attentive: Attentive = Attentive()
    retrieval: Retrieval = Retrieval()
    finetune: Finetune = Finetune()


class Task(Settings):
    """Columns of the table: a protocol on a data set."""

    protocol: Annotated[str, Known(registry.protocols)]
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
    crops: Literal[1, 3] = Field(1, description="crops of a frame at test time, along its longer side (paper: 3)")
    train_clips: Positive = Field(
        1, description="augmented clips per training item for probes (paper: 25 video, 100 audio); 1: one plain clip"
    )
    views: dict[str, Any] = Field(
        default_factory=dict,
        description="changes to the run's views video_global and audio_global, e.g. size: 224 (paper, finetuning)",
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="settings of evaluate.<protocol> that differ here"
    )
