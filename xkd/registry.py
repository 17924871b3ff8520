"""Registries: the names that settings may use, ours and those of plugins, and what each name stands for.

Settings must be readable in a moment and without torch, so a registry knows our own names from the start; what they
stand for is registered when the module that defines it is imported. `xkd.plugins` imports files that add more names.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from xkd.errors import UserError

if TYPE_CHECKING:
    from xkd.protocols import Protocol

Entry = TypeVar("Entry")
PACKAGE = Path(__file__).parent


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Maps names to implementations of one kind.

    Args:
        kind: what an entry is, in words.
        own: names that this package registers itself.
        reserved: further names that no plugin may take.
    """

    def __init__(self, kind: str, own: Iterable[str] = (), reserved: Iterable[str] = ()) -> None:
        self.kind, self.own, self.reserved = kind, tuple(own), tuple(reserved)
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Returns a decorator that registers a class or function under `name`.

        Raises:
            UserError: the name is taken, or no identifier.
        """

        def keep(entry: Entry) -> Entry:
            if not name.isidentifier():
                raise UserError(f"{self.kind} '{name}': use letters, digits and _, and begin with a letter")
            taken = name in self._entries or name in self.reserved or (name in self.own and source_file(entry))
            if taken:
                raise UserError(f"{self.kind} '{name}' exists already; register yours under another name")
            self._entries[name] = entry
            return entry

        return keep

    @property
    def names(self) -> tuple[str, ...]:
        """Every known name: our own first, then those of plugins."""
        return (*self.own, *(name for name in self._entries if name not in self.own))

    @property
    def plugged(self) -> dict[str, Entry]:
        """The entries of plugins."""
        return {name: entry for name, entry in self._entries.items() if name not in self.own}

    def file(self, name: str) -> Path | None:
        """Returns the plugin file that registered `name`; None for our own names."""
        return source_file(self.plugged[name]) if name in self.plugged else None

    def forget(self, file: Path) -> None:
        """Removes the entries that a plugin file registered."""
        for name in [name for name in self.plugged if self.file(name) == file]:
            del self._entries[name]

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise UserError(f"no {self.kind} '{name}'{suggest(name, self.names)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def source_file(entry: Any) -> Path | None:
    """Returns the file outside this package that defines a class or function; None for our own."""
    path = Path(inspect.getfile(inspect.unwrap(entry))).resolve()
    return None if path.is_relative_to(PACKAGE) else path


def suggest(word: str, known: Collection[str]) -> str:
    """Returns the end of an error message about an unknown name: the nearest known name, or all of them."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(sorted(known))}"


terms: Registry[Any] = Registry("objective term", ("reconstruction", "distillation", "alignment", "supervised"))
discrepancies: Registry[Any] = Registry("discrepancy", ("mmd", "coral"))
refinements: Registry[Any] = Registry("refinement", ("mean", "softmax"), reserved=("none",))
backbones: Registry[Any] = Registry("backbone", ("vit", "rope"))
protocols: Registry[type[Protocol]] = Registry(
    "protocol", ("linear", "few_shot", "svm", "layer", "attentive", "retrieval", "finetune")
)
augmentations: Registry[Any] = Registry("augmentation")
peers: Registry[Any] = Registry("adapter", ("timm", "torchaudio", "transformers"))
layouts: Registry[Any] = Registry(
    "data set layout",
    ("ucf101", "hmdb51", "kinetics400", "kinetics_sound", "esc50", "fsd50k", "audioset", "folder", "manifest"),
    reserved=("talking_digits",),  # generated: no files of others to lay out
)

ALL: tuple[Registry[Any], ...] = (
    *(terms, discrepancies, refinements, backbones, protocols, augmentations, peers, layouts),
)
