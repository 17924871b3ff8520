"""Outputs of networks for the clips of a split, all networks in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xkd.device import device
from xkd.errors import UserError
from xkd.modalities import MODALITIES

if TYPE_CHECKING:
    from xkd.data.loader import Batch

Key = tuple[str, str]  # owner (student or teacher), modality (video or audio)
Extractors = Mapping[Key, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class ClipOutputs:
    """The clips of a split and the networks' outputs for them, in the order of the manifest.

    Attributes:
        ids, labels: (clips,) strings.
        items: per modality (clips,) names of the scan or recording a clip was made of; its own id if unknown.
        outputs: per network (clips, views, D): float32, or float16 on disk.
    """

    ids: np.ndarray
    labels: np.ndarray
    items: dict[str, np.ndarray]
    outputs: Mapping[Key, np.ndarray]

    def take(self, ids: Collection[str], *others: ClipOutputs) -> ClipOutputs:
        """Returns some of the clips, in the order of `ids`; their outputs, float32, are read when they are asked for.

        Args:
            others: further views of the same clips, which come beside.
        """
        rows = pd.Series(np.arange(len(self.ids)), self.ids)[list(ids)].to_numpy()
        items = {modality: names[rows] for modality, names in self.items.items()}
        outputs = Taken([self.outputs, *(other.outputs for other in others)], rows)
        return ClipOutputs(self.ids[rows], self.labels[rows], items, outputs)

    def items_of(self, modality: str) -> list[np.ndarray]:
        """Returns the factors that a feature of this modality ("both": of both) varies with.

        A factor whose items each lie within one item of another, as clips lie within their video, is left out.
        """
        factors: list[np.ndarray] = []
        for names in [names for owner, names in self.items.items() if modality in (owner, "both")]:
            if not any(_nested(names, other) for other in factors):
                factors = [other for other in factors if not _nested(other, names)] + [names]
        return factors


class Taken(Mapping[Key, np.ndarray]):
    """Outputs of some clips, views of all parts side by side; gathered anew whenever a network is asked for."""

    def __init__(self, parts: Sequence[Mapping[Key, np.ndarray]], rows: np.ndarray) -> None:
        self._parts, self.rows = parts, rows

    def parts(self, key: Key) -> list[np.ndarray]:
        """Returns all parts with the outputs of all clips, on disk where they were; those of these clips are `rows`."""
        return [part[key] for part in self._parts]

    def __getitem__(self, key: Key) -> np.ndarray:
        views = self.parts(key)
        ends = np.cumsum([values.shape[1] for values in views])
        found = np.empty((len(self.rows), ends[-1], views[0].shape[2]), np.float32)
        for part, values in zip(np.split(found, ends[:-1], axis=1), views, strict=True):
            part[:] = values[self.rows]
        return found

    def __iter__(self) -> Iterator[Key]:
        return iter(self._parts[0])

    def __len__(self) -> int:
        return len(self._parts[0])


def outputs_of(
    networks: Extractors, batches: Iterable[Batch], precision: str = "float32"
) -> Iterator[tuple[list[str], dict[Key, np.ndarray]]]:
    """Yields per batch its ids and every network's output for each view (B, views, D), float32, without gradients.

    Args:
        networks: per owner and modality, a function from a view (B, ...) to (B, D): `Encoder.features` or a classifier.
        batches: `xkd.data.loader.Batch`es, with one view or several per modality.
        precision: float32, or what networks run in under autocast.

    Raises:
        UserError: outputs that are not finite.
    """
    autocast = torch.autocast(device().type, getattr(torch, precision), enabled=precision != "float32")
    with torch.inference_mode():
        for batch in batches:
            views = {m: [view.to(device(), non_blocking=True) for view in batch.views[m]] for _, m in networks}
            with autocast:
                found = {key: [network(view) for view in views[key[1]]] for key, network in networks.items()}
            outputs = {key: torch.stack(each, 1).float().cpu().numpy() for key, each in found.items()}
            yield batch.ids, {key: check_finite(values, batch.ids, " ".join(key)) for key, values in outputs.items()}


def check_finite(outputs: np.ndarray, ids: Sequence[str] | np.ndarray, name: str) -> np.ndarray:
    """Returns the outputs (clips, ...), if all are finite.

    Raises:
        UserError: otherwise; `name` says whose they are.
    """
    odd = np.flatnonzero(~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1))
    if len(odd):
        raise UserError(
            f"{name}: outputs that are not finite for clip {ids[odd[0]]} (and {len(odd) - 1} more): such values in the "
            "clip, or weights that overflow"
        )
    return outputs


def of_rows(rows: pd.DataFrame, outputs: Mapping[Key, np.ndarray]) -> ClipOutputs:
    """Combines outputs in the order of a manifest's rows with ids, labels and items of the rows."""
    items = {m: _items(rows, f"{m}_source") for m in MODALITIES}
    return ClipOutputs(rows["id"].to_numpy(dtype=str), rows["label"].to_numpy(dtype=str), items, outputs)


def incomplete(came: list[str], wanted: list[str]) -> UserError:
    """Returns the error for clips that are not those of the manifest."""
    missing = sorted(set(wanted) - set(came))
    return UserError(
        f"evaluation got {len(came)} of {len(wanted)} clips"
        + (f", not {missing[0]}" if missing else "")
        + "; run `python -m xkd prepare` again"
    )


def _nested(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Returns whether clips of one item of `fine` are always of one item of `coarse`."""
    (of_fine, names), (of_coarse, others) = pd.factorize(fine), pd.factorize(coarse)
    return len(np.unique(of_fine * len(others) + of_coarse)) == len(names)


def _items(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns the item of each clip; a clip of unknown source is an item of its own."""
    names: np.ndarray = rows[column].where(rows[column] != "", rows["id"]).to_numpy(dtype=str)
    return names
