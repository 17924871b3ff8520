"""Protocol `retrieval`: search from each modality to the other, for every owner that has both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from xkd.downstream import notes, ranking
from xkd.downstream.features import ClipOutputs, Key, check_finite, device
from xkd.downstream.job import EvaluationJob
from xkd.downstream.scores import Judged, Retrieved
from xkd.errors import UserError
from xkd.modalities import OTHER
from xkd.protocols import Column, CrossModalRetrieval
from xkd.settings import Retrieval


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
    for query, other in OTHER.items():
        ranks, nearest = ranking.retrieve(vectors[query], vectors[other], relevant)
        yield Retrieved(Column(owner, query, "retrieval"), ranks, test.ids[nearest], share, chosen, remarks)


def _projected(job: EvaluationJob[Retrieval], key: Key, clips: ClipOutputs, heads: bool) -> np.ndarray:
    """Returns the projection head's outputs for features (clips, views, D), or the features if there are no heads."""
    values = np.asarray(clips.outputs[key])
    if not heads:
        return values
    head, parts = job.heads[key].to(device()), torch.from_numpy(values).flatten(0, 1).split(4096)
    with torch.inference_mode():
        logits = torch.cat([head(part.to(device())).float().cpu() for part in parts])
    projected: np.ndarray = logits.unflatten(0, values.shape[:2]).numpy()
    return check_finite(projected, clips.ids, f"projection head of {key[0]} {key[1]}")
