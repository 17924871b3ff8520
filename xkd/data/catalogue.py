"""Looks up data sets: the settings of each, and the facts known about those of the paper and the generated ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict

from xkd.errors import UserError
from xkd.registry import suggest
from xkd.settings import Clips, Dataset, Params

CATALOGUE = Path(__file__).parent / "sources" / "catalogue.yaml"


class CatalogueEntry(BaseModel):
    """Base of the catalogue's entries: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(CatalogueEntry):
    """Describes a file of a data set: its address, its name here, its published checksum, if it holds archives."""

    url: str
    name: str = ""
    checksum: str = ""
    nested: bool = False

    @property
    def file(self) -> str:
        """Returns the name of the file: the last part of its address unless the catalogue says otherwise."""
        return self.name or urlsplit(self.url).path.rsplit("/", 1)[-1]


class ArchiveList(CatalogueEntry):
    """Describes a text file that lists the addresses of archives; these go to `folder`."""

    url: str
    folder: str


class Facts(CatalogueEntry):
    """Holds the catalogue's entry of a data set; catalogue.yaml explains the keys."""

    title: str
    homepage: str
    licence: str
    citation: str
    require: str
    labels: int
    seconds: float
    expected: dict[str, int] = {}
    archives: tuple[Archive, ...] = ()
    lists: tuple[ArchiveList, ...] = ()
    also: str = ""
    same_files_as: str | None = None
    connections: int = 1
    folds: tuple[str, ...] = ()
    own_clips: bool = False
    generated: bool = False


@cache
def known_datasets() -> dict[str, Facts]:
    """Reads the catalogue, by kind of data set; one that is part of another gets the files of that one."""
    entries = {kind: Facts(**values) for kind, values in yaml.safe_load(CATALOGUE.read_text()).items()}
    for kind, entry in entries.items():
        if entry.same_files_as:
            whole = entries[entry.same_files_as]
            entries[kind] = entry.model_copy(
                update={"archives": whole.archives, "lists": whole.lists, "also": whole.also}
            )
    return entries


def is_own(kind: str) -> bool:
    """Says whether clips of this kind are the user's own: the catalogue does not know them."""
    return kind not in known_datasets()


def entry(params: Params, name: str) -> Dataset:
    """Returns the settings of a data set, with `require` filled in.

    Raises:
        UserError: there is no data set of that name.
    """
    if name not in params.datasets:
        raise UserError(f"datasets: no data set '{name}'{suggest(name, params.datasets)}")
    found = params.datasets[name]
    return found.model_copy(update={"require": required(found)})


def required(dataset: Dataset) -> str:
    """Returns which streams a clip must have ("both", "video", "audio", "any"): as set, else as the catalogue says."""
    known = known_datasets().get(dataset.kind)
    return dataset.require or (known.require if known else "both")


def clips(params: Params, name: str) -> Clips:
    """Returns how the clips of a data set are prepared.

    Raises:
        UserError: there is no data set of that name.
    """
    size = entry(params, name).size
    return params.clips.model_copy(update={"size": size}) if size else params.clips
