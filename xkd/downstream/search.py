"""Protocol `retrieval`: search from each modality to the other, for every owner that has both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from xkd.device import device
from xkd.downstream import notes, ranking
from xkd.downstream.features import ClipOutputs, Key, check_finite
from xkd.downstream.job import EvaluationJob
from xkd.downstream.scores import Judged, Retrieved
from xkd.errors import UserError
from xkd.modalities import OTHER
from xkd.protocols import Column, CrossModalRetrieval
from xkd.settings import Retrieval

ROWS = 4096  # views in the head at once


@CrossModalRetrieval.runs
def search(job: EvaluationJob[Retrieval]) -> Iterator[Judged]:
    """Ranks all test clips of the other modality for each test clip.

    Raises:
        UserError: no owner has both encoders.
    """
    for fold, train, test in job.frozen_folds():
        relevant = ranking.relevant_clips(test.ids, test.labels, job.settings.relevant)
        found = [
            one
            for owner in sorted({owner for owner, _ in test.outputs})
            if all((owner, modality) in test.outputs for modality in OTHER)
            for one in _both_ways(job, owner, train, test, relevant)
        ]
        if not found:
            raise UserError(
                f"{job.path}: {job.recipe.ablation} has no pair of encoders for both modalities of these clips; "
                "leave it out of the task's `ablations`"
            )
        yield Judged(fold, test, found)


def _both_ways(
    job: EvaluationJob[Retrieval], owner: str, train: ClipOutputs, test: ClipOutputs, relevant: ranking.Relevant
) -> Iterator[Retrieved]:
    keys = {modality: (owner, modality) for modality in OTHER}
    heads, clips = all(key in job.heads for key in keys.values()), len(test.ids)
    chosen: dict[str, float | str] = {f"{owner}.retrieval.space": "heads" if heads else "features"}
    share, remarks = ranking.relevant_share(clips, relevant), tuple(notes.of_gallery(clips))
    vectors = {
        m: ranking.embeddings(*(_projected(job, key, part, heads) for part in (train, test))) for m, key in keys.items()
    }
    widths = {vector.shape[1] for vector in vectors.values()}
    if len(widths) > 1:
        raise UserError(
            f"{job.recipe.ablation}: features of video and audio have {' and '.join(map(str, sorted(widths)))} values, "
            "so that retrieval cannot compare them; leave the row out of the task's `ablations`"
        )
    for query, other in OTHER.items():
        ranks, nearest = ranking.retrieve(vectors[query], vectors[other], relevant)
        yield Retrieved(Column(owner, query, "retrieval"), ranks, test.ids[nearest], share, chosen, remarks)


def _projected(job: EvaluationJob[Retrieval], key: Key, clips: ClipOutputs, heads: bool) -> Iterator[np.ndarray]:
    """Yields the projection head's outputs (some clips, views, D), or the features if there are no heads."""
    values = clips.outputs[key]
    head = job.heads[key].to(device()) if heads else None
    size = max(1, ROWS // values.shape[1])
    for start in range(0, len(values), size):
        part = values[start : start + size]
        if head is not None:
            with torch.inference_mode():
                logits = head(torch.from_numpy(part).flatten(0, 1).to(device())).float().cpu()
            names = f"projection head of {key[0]} {key[1]}"
            part = check_finite(logits.unflatten(0, part.shape[:2]).numpy(), clips.ids[start : start + size], names)
        yield part
