"""Outputs of frozen networks for every clip of a split, all networks in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xkd.errors import UserError

Key = tuple[str, str]  # owner (student or teacher), modality (video or audio)


@dataclass(frozen=True)
class Clips:
    """The clips of a split and what the networks say about them, in the order of the manifest.

    Attributes:
        ids, labels: (clips,) strings.
        items: per modality (clips,) names of the scan or recording a clip was made of; its own id if unknown.
        outputs: per network (clips, views, D) float32.
    """

    ids: np.ndarray
    labels: np.ndarray
    items: dict[str, np.ndarray]
    outputs: dict[Key, np.ndarray]

    def take(self, ids: Collection[str]) -> Clips:
        """Some of the clips, in the order of `ids`."""
        place = {id: number for number, id in enumerate(self.ids)}
        rows = [place[id] for id in ids]
        items = {modality: names[rows] for modality, names in self.items.items()}
        outputs = {key: values[rows] for key, values in self.outputs.items()}
        return Clips(self.ids[rows], self.labels[rows], items, outputs)

    def items_of(self, modality: str) -> list[np.ndarray]:
        """The factors that a feature of this modality ("both": of both) varies with."""
        return [names for owner, names in self.items.items() if modality in (owner, "both")]


def extract(networks: Mapping[Key, Callable[[Tensor], Tensor]], batches: Iterable, rows) -> Clips:
    """Runs every network over every clip, without gradients.

    Args:
        networks: per owner and modality, what maps a view (B, ...) to (B, D): `Encoder.features`, or a classifier.
        batches: `xkd.data.loader.Batch`es, with one view or several per modality.
        rows: the manifest's rows of the clips that the batches must bring (id, label, video_source, audio_source).

    Raises:
        UserError: a clip of the manifest did not come, or came twice.
    """
    ids: list[str] = []
    outputs: dict[Key, list[Tensor]] = {key: [] for key in networks}
    with torch.inference_mode():
        for batch in batches:
            ids += batch.ids
            for (owner, modality), network in networks.items():
                views = [network(view.to(device())).float().cpu() for view in getattr(batch, modality)]
                outputs[owner, modality].append(torch.stack(views, 1))
    position = {id: index for index, id in enumerate(ids)}
    wanted = rows["id"].tolist()
    if sorted(ids) != sorted(wanted):
        missing = sorted(set(wanted) - set(ids))
        raise UserError(
            f"evaluation got {len(ids)} of {len(wanted)} clips"
            + (f", not {missing[0]}" if missing else "")
            + "; run `python -m xkd prepare` again"
        )
    order = [position[id] for id in wanted]
    arrays = {key: torch.cat(parts).numpy()[order] for key, parts in outputs.items()}
    items = {m: _items(rows, f"{m}_source") for m in ("video", "audio")}
    return Clips(np.array(wanted), rows["label"].to_numpy(dtype=str), items, arrays)


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _items(rows, column: str) -> np.ndarray:
    """Provenance of each clip; a clip of unknown provenance is an item of its own."""
    return rows[column].where(rows[column] != "", rows["id"]).to_numpy(dtype=str)
