"""Embeddings of held-out clips in the space that alignment and distillation share, before and after training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xkd.data.clips import open_clips
from xkd.data.views import EvalViews
from xkd.files import replacing
from xkd.models.head import head_input
from xkd.models.networks import Networks
from xkd.recipe import Recipe
from xkd.runs import EMBEDDINGS

HELD_OUT_CLIPS = 256
EMBEDDED_AT_ONCE = 16  # clips: full-size views of all of them at once would not fit in memory


@dataclass(frozen=True)
class HeldOut:
    """B clips: one evaluation view of each per modality."""

    ids: list[str]
    labels: list[str]
    views: dict[str, Tensor]


def held_out(recipe: Recipe, manifest: Path, modalities: tuple[str, ...], split: str = "test") -> Iterator[HeldOut]:
    """Reads at most `HELD_OUT_CLIPS` clips of a split, evenly picked, in batches."""
    store, seen = open_clips(manifest, split), EvalViews(recipe, modalities)
    picked = np.unique(np.linspace(0, len(store) - 1, min(HELD_OUT_CLIPS, len(store))).round().astype(int)).tolist()
    for first in range(0, len(picked), EMBEDDED_AT_ONCE):
        numbers = picked[first : first + EMBEDDED_AT_ONCE]
        clips, labels = seen.open(store, numbers), store.labels.take(numbers)
        yield HeldOut([clip.id for clip in clips], labels, {m: of[0] for m, of in seen.batch(clips).items()})


@torch.no_grad()
def save_embeddings(networks: dict[str, Networks], batches: Iterable[HeldOut], device: torch.device, out: Path) -> None:
    """Writes embeddings.npz: the logits of the students' projection heads.

    Arrays: `ids` and `labels` (N,) of text; per modality and moment, such as `video_after`, (N, K) float16, for N clips
    and K logits. A run without heads (it neither distils nor aligns) leaves no clips.

    Args:
        networks: by moment, "before" and "after" training.
        batches: of `held_out`.
        device: of the networks.
        out: folder of the run.
    """
    ids: list[str] = []
    labels: list[str] = []
    logits: dict[str, list[np.ndarray]] = {}
    heads = [(moment, m) for moment, those in networks.items() for m in those.eval().student_heads]
    for batch in batches if heads else ():
        ids += batch.ids
        labels += batch.labels
        for moment, modality in heads:
            student, head = networks[moment].students[modality], networks[moment].student_heads[modality]
            tokens_BSD = student(batch.views[modality].to(device))
            found_BK = head(head_input(networks[moment].head_input, tokens_BSD[:, 0], tokens_BSD[:, 1:].mean(1)))
            logits.setdefault(f"{modality}_{moment}", []).append(found_BK.half().cpu().numpy())
    arrays = {"ids": np.array(ids, dtype=str), "labels": np.array(labels, dtype=str)}
    arrays |= {name: np.concatenate(parts) for name, parts in logits.items()}
    with replacing(out / EMBEDDINGS) as path, open(path, "wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]  # no name of ours is `allow_pickle`
