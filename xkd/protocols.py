"""Evaluation protocols: what each needs and yields, and the columns of results that hold its figures.

A protocol of your own is a class like these, complete with `run`, in a plugin. `run` of our own is attached by
`xkd.downstream`, so that the report can read the rest without the code of probes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from xkd import registry
from xkd.settings import MODALITY_NAMES, Attentive, FewShot, Finetune, FrozenSettings, Layer, Linear, Retrieval, Svm
from xkd.settings import Settings as Group
from xkd.settings.evaluation import MOST_SHOTS

Runner = TypeVar("Runner", bound=Callable[[Any], Iterator[Any]])


class Protocol:
    """Base of all protocols; an entry of the registry is the class itself. The table shows them as they are registered.

    Attributes:
        Settings: what `evaluate.<name>` and `tasks.<task>.changes` may say; with `encoders` (see `FrozenSettings`) for
            protocols on frozen features.
        methods: title of each method whose figures it may yield.
        metrics: title of each metric that the table may show; the first that a result has is shown.
        learns_labels: it trains on labels, so training clips must have two or more.
        needs_pairs: it needs the encoders of both modalities of an owner.
        reads_tokens: it reads all patch tokens of frozen encoders, and not their mean.
        shares_batches: several processes may run it together; `Settings` then has `batch_size`.
        paper: what the paper calls it; None for a protocol that the paper does not have.
        run: takes a `xkd.downstream.job.EvaluationJob` and yields a `xkd.downstream.scores.Judged` for each fold.
    """

    Settings: ClassVar[type[Group]]
    methods: ClassVar[Mapping[str, str]]
    metrics: ClassVar[Mapping[str, str]] = {"top1": "", "map": "mAP"}
    learns_labels: ClassVar[bool] = True
    needs_pairs: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    shares_batches: ClassVar[bool] = False
    paper: ClassVar[str | None] = None
    run: ClassVar[Callable[[Any], Iterator[Any]]]  # Any: types of xkd.downstream would count as code of the report

    @classmethod
    def runs(cls, function: Runner) -> Runner:
        """Attaches the function that runs the protocol; used as a decorator."""
        cls.run = function
        return function

    @classmethod
    def methods_of(cls, task: str, protocol: str) -> list[str]:
        """Returns what the table calls its methods where a task uses it; `protocol` is its name."""
        return [Column("", "", method).of_task(task, protocol).method for method in cls.methods]

    @classmethod
    def epochs(cls, settings: Any) -> int:
        """Returns how often encoders are trained on every training clip; 0 where they are frozen."""
        return 0

    @classmethod
    def reads_vectors(cls) -> bool:
        """Says if it needs one frozen vector of each clip and no more, so that it can judge any encoder."""
        return issubclass(cls.Settings, FrozenSettings) and not cls.reads_tokens


@registry.protocols.register("linear")
class LinearProbe(Protocol):
    """Logistic regression and nearest neighbours on frozen features."""

    Settings = Linear
    methods: ClassVar = {"linear": "linear probe", "knn": "kNN"}
    paper = "linear"


@registry.protocols.register("few_shot")
class FewShotProbe(Protocol):
    """Logistic regression on frozen features of few clips of each class."""

    Settings = FewShot
    methods: ClassVar = {f"{shots}_shot": f"{shots}-shot" for shots in range(1, MOST_SHOTS + 1)}


@registry.protocols.register("svm")
class SvmProbe(Protocol):
    """Linear support vector machine on frozen features."""

    Settings = Svm
    methods: ClassVar = {"svm": "SVM"}
    paper = "linear"


@registry.protocols.register("layer")
class LayerProbe(Protocol):
    """Linear layer trained by gradient descent on frozen features."""

    Settings = Layer
    methods: ClassVar = {"layer": "layer"}
    paper = "linear"


@registry.protocols.register("attentive")
class AttentiveProbe(Protocol):
    """Attention over frozen patch tokens, and a linear layer."""

    Settings = Attentive
    methods: ClassVar = {"attentive": "attentive"}
    reads_tokens = True


@registry.protocols.register("retrieval")
class CrossModalRetrieval(Protocol):
    """Search from each modality to the other."""

    Settings = Retrieval
    methods: ClassVar = {"retrieval": "R@1"}
    metrics: ClassVar = {"recall1": "R@1"}
    learns_labels = False
    needs_pairs = True


@registry.protocols.register("finetune")
class Finetuning(Protocol):
    """Training of whole encoders with labels."""

    Settings = Finetune
    methods: ClassVar = {"finetune": "finetuned"}
    shares_batches = True
    paper = "finetune"

    @classmethod
    def epochs(cls, settings: Finetune) -> int:
        """Returns the epochs of finetuning."""
        return settings.epochs


@dataclass(frozen=True)
class Column:
    """Names what a figure is about, as text "student.video.linear".

    Attributes:
        owner: student or teacher.
        modality: what it sees: video, audio or both; of retrieval, the query's.
        method: of a protocol; in the table, with the task's name where that is not the protocol's ("ucf101_linear").
    """

    owner: str
    modality: str
    method: str

    def __str__(self) -> str:
        return f"{self.owner}.{self.modality}.{self.method}"

    @classmethod
    def parse(cls, text: str) -> Column:
        """Reads the text form.

        Raises:
            ValueError: it has not three parts.
        """
        owner, modality, method = text.split(".")
        return cls(owner, modality, method)

    def of_task(self, task: str, protocol: str) -> Column:
        """Returns the column of the table that shows this figure for a task."""
        if task == protocol:
            return self
        return replace(self, method=task if task.endswith(self.method) else f"{task}_{self.method}")

    @property
    def place(self) -> tuple[list[int], str]:
        """Sorts columns by owner, then method as protocols are registered, then modality; unknown words come last."""
        methods = [method for protocol in registry.protocols.values() for method in protocol.methods]
        known = (("student", "teacher"), methods, (*MODALITY_NAMES, "both"))
        words = (self.owner, self.method, self.modality)
        return [list(of).index(word) if word in of else len(of) for of, word in zip(known, words, strict=True)], str(
            self
        )

    @property
    def method_title(self) -> str:
        """The method's title, or its name where it has none."""
        titles = {name: title for protocol in registry.protocols.values() for name, title in protocol.methods.items()}
        return titles.get(self.method, self.method)


def metric_title(metric: str) -> str:
    """Returns a metric's title, "" for the usual one; its name where it has none."""
    titles = {name: title for protocol in registry.protocols.values() for name, title in protocol.metrics.items()}
    return titles.get(metric, metric)


def headline_metrics(protocol: str, metrics: Collection[str]) -> dict[Column, str]:
    """Returns the metric of each classifier that the table shows.

    Args:
        metrics: names `<column>.<metric>` of an evaluation by this protocol.
    """
    columns = dict.fromkeys(Column.parse(name.rpartition(".")[0]) for name in metrics)
    found = {c: [m for m in registry.protocols[protocol].metrics if f"{c}.{m}" in metrics] for c in columns}
    return {column: those[0] for column, those in found.items() if those}
