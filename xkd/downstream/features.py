"""Outputs of frozen networks for every clip of a split, all networks in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.modalities import MODALITIES

if TYPE_CHECKING:
    import pandas as pd

    from xkd.data.loader import Batch

Key = tuple[str, str]  # owner (student or teacher), modality (video or audio)
Extractors = Mapping[Key, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class ClipOutputs:
    """The clips of a split and the networks' outputs for them, in the order of the manifest.

    Attributes:
        ids, labels: (clips,) strings.
        items: per modality (clips,) names of the scan or recording a clip was made of; its own id if unknown.
        outputs: per network (clips, views, D) float32.
    """

    ids: np.ndarray
    labels: np.ndarray
    items: dict[str, np.ndarray]
    outputs: dict[Key, np.ndarray]

    def take(self, ids: Collection[str]) -> ClipOutputs:
        """Returns some of the clips, in the order of `ids`."""
        place = {id: number for number, id in enumerate(self.ids)}
        rows = [place[id] for id in ids]
        items = {modality: names[rows] for modality, names in self.items.items()}
        outputs = {key: values[rows] for key, values in self.outputs.items()}
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


def extract(networks: Extractors, batches: Iterable[Batch], rows: pd.DataFrame) -> ClipOutputs:
    """Runs every network over every clip.

    Args:
        networks: per owner and modality, a function from a view (B, ...) to (B, D): `Encoder.features` or a classifier.
        batches: `xkd.data.loader.Batch`es, with one view or several per modality.
        rows: the manifest's rows of the clips that the batches must bring (id, label, video_source, audio_source).

    Raises:
        UserError: a clip of the manifest did not come, or came twice.
    """
    ids: list[str] = []
    parts: dict[Key, list[np.ndarray]] = {key: [] for key in networks}
    for came, outputs in outputs_of(networks, batches):
        ids += came
        for key, values in outputs.items():
            parts[key].append(values)
    wanted = rows["id"].tolist()
    if sorted(ids) != sorted(wanted):
        raise incomplete(ids, wanted)
    position = {id: index for index, id in enumerate(ids)}
    order = [position[id] for id in wanted]
    return of_rows(rows, {key: np.concatenate(values)[order] for key, values in parts.items()})


def outputs_of(networks: Extractors, batches: Iterable[Batch]) -> Iterator[tuple[list[str], dict[Key, np.ndarray]]]:
    """Yields per batch its ids and every network's output for each view (B, views, D), float32, without gradients.

    Raises:
        UserError: outputs that are not finite.
    """
    with torch.inference_mode():
        for batch in batches:
            outputs = {}
            for (owner, modality), network in networks.items():
                views = [network(view.to(device())).float().cpu() for view in batch.views[modality]]
                outputs[owner, modality] = check_finite(torch.stack(views, 1).numpy(), batch.ids, f"{owner} {modality}")
            yield batch.ids, outputs


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


def of_rows(rows: pd.DataFrame, outputs: dict[Key, np.ndarray]) -> ClipOutputs:
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


def device() -> torch.device:
    """Returns the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _nested(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Returns whether clips of one item of `fine` are always of one item of `coarse`."""
    return len(set(zip(fine.tolist(), coarse.tolist(), strict=True))) == len(set(fine.tolist()))


def _items(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns the item of each clip; a clip of unknown source is an item of its own."""
    names: np.ndarray = rows[column].where(rows[column] != "", rows["id"]).to_numpy(dtype=str)
    return names
