"""The data sets that params.yaml names, and what is known about those of the paper."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict

from xkd.errors import UserError
from xkd.params import suggest
from xkd.settings import Clips, Dataset, Params

FACTS = Path(__file__).parent / "sources" / "catalogue.yaml"
EMBEDDED = ("talking_digits", "spoken_digits")


class CatalogueEntry(BaseModel):
    """Base of the catalogue's entries: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(CatalogueEntry):
    """A file of a data set: its address, its name here, its published checksum, and whether it holds archives."""

    url: str
    name: str = ""
    checksum: str = ""
    nested: bool = False

    @property
    def file(self) -> str:
        """Name of the file: the last part of its address unless the catalogue says otherwise."""
        return self.name or urlsplit(self.url).path.rsplit("/", 1)[-1]


class ArchiveList(CatalogueEntry):
    """A text file that lists the addresses of archives, which go to `folder`."""

    url: str
    folder: str


class Facts(CatalogueEntry):
    """What is known about a data set; see catalogue.yaml."""

    title: str
    homepage: str
    licence: str
    citation: str
    gigabytes: float
    require: str
    labels: int
    expected: dict[str, int]
    archives: tuple[Archive, ...] = ()
    lists: tuple[ArchiveList, ...] = ()
    also: str = ""
    same_files_as: str | None = None
    connections: int = 1
    folds: tuple[str, ...] = ()
    multi_label: bool = False
    own_clips: bool = False


@cache
def known_datasets() -> dict[str, Facts]:
    """The data sets of the paper by kind; one that is part of another has that one's files."""
    entries = {kind: Facts(**values) for kind, values in yaml.safe_load(FACTS.read_text()).items()}
    for kind, entry in entries.items():
        if entry.same_files_as:
            whole = entries[entry.same_files_as]
            entries[kind] = entry.model_copy(
                update={"archives": whole.archives, "lists": whole.lists, "also": whole.also}
            )
    return entries


def entry(params: Params, name: str) -> Dataset:
    """The settings of a data set, with `require` filled in.

    Raises:
        UserError: there is none of that name.
    """
    if name not in params.datasets:
        raise UserError(f"datasets: no data set '{name}'{suggest(name, params.datasets)}")
    found = params.datasets[name]
    return found.model_copy(update={"require": required(found)})


def required(dataset: Dataset) -> str:
    """Streams that a clip must have to be used ("both", "video", "audio", "any"): as set, else as the catalogue says."""
    known = known_datasets().get(dataset.kind)
    return dataset.require or (known.require if known else "both")


def clips(params: Params, name: str) -> Clips:
    """How the clips of a data set are prepared.

    Raises:
        UserError: there is none of that name.
    """
    size = entry(params, name).size
    return params.clips.model_copy(update={"size": size}) if size else params.clips
