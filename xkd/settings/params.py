"""The whole of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from xkd.settings.base import Folder, Name, Place, Seed, Settings, Text
from xkd.settings.data import Clips, Dataset, Limits, LogMel
from xkd.settings.evaluation import Evaluate, Task
from xkd.settings.expectations import Expectation
from xkd.settings.model import Model
from xkd.settings.objective import ObjectiveSettings
from xkd.settings.resources import Resources, TrainingRequest
from xkd.settings.sweep import Point, Sweep
from xkd.settings.training import Training
from xkd.settings.views import Views


class Report(Settings):
    """The report: what differences refer to, and how figures are rounded."""

    baseline: Name = Field("ae", description="ablation that differences are taken against")
    decimals: Annotated[int, Field(ge=0, le=4)] = 1


class Ablation(Settings):
    """A row of the table: what it asks, where the paper asks it, and what differs from the base."""

    hypothesis: Text = Field(min_length=1)
    expects: tuple[Expectation, ...] = Field(
        (), max_length=100, description="what the hypothesis says of the figures; the table gives each a verdict"
    )
    paper: Text | None = Field(None, description="`method` of xkd/report/paper_results.csv for the same row")
    paper_table: Text = Field("", description="the table of the paper that this row mirrors")
    dataset: Name | None = Field(
        None, description="data set that this row is pretrained on; default: that of the table, which judges every row"
    )
    datasets: tuple[Name, ...] = Field(
        (), description="further data sets: each gives a row <row>_on_<data set> that is pretrained there"
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ: groups model, objective, training, views"
    )
    resources: TrainingRequest | None = Field(None, description="values of resources.pretrain that differ")


class Base(Settings):
    """The settings that a pretraining job depends on."""

    dataset: Name
    clips: Clips
    logmel: LogMel
    views: Views
    model: Model
    objective: ObjectiveSettings
    training: Training


class Params(Base):
    """The whole of params.yaml."""

    extends: Place | None = Field(
        None, description="another settings file (relative to this one) that this one changes; null removes a key"
    )
    plugins: tuple[Place, ...] = Field(
        (), max_length=100, description="Python files that register terms, protocols, ... of your own (docs/plugins.md)"
    )
    results: Folder = Field(
        "results",
        description="folder of the table, figures and report: letters, digits and . _ - in each part, and none of the "
        "folders that hold something else, such as data or runs",
    )
    seeds: tuple[Seed, ...] = Field(min_length=1)
    datasets: dict[Name, Dataset]
    limits: Limits = Limits()
    evaluate: Evaluate
    tasks: dict[Name, Task] = Field({"linear": Task(protocol="linear")}, min_length=1)
    report: Report
    resources: Resources = Resources()
    ablations: dict[Name, Ablation]
    sweeps: dict[Name, Sweep] = Field({}, description="settings that take several values, each as a row of its own")
    _points: tuple[Point, ...] = PrivateAttr(())

    @property
    def points(self) -> tuple[Point, ...]:
        """All points of all sweeps; none before `xkd.rows.expanded` has made them."""
        return self._points

    def with_rows(self, ablations: dict[str, Ablation], points: tuple[Point, ...]) -> Params:
        """Returns these settings with other rows, and with the points of sweeps that are among them."""
        changed = self.model_copy(update={"ablations": ablations})
        changed._points = points
        return changed
