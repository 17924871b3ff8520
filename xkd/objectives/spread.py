"""Spread of features over a batch: a diagnostic of every run, whatever its objective."""

from __future__ import annotations

from torch import Tensor

from xkd.logged import CollapseSign, LoggedColumn, Threshold, each
from xkd.modalities import MODALITIES

FLAT = CollapseSign(
    "feature spread / start, {}",
    "{} student",
    "start",
    (
        Threshold(
            *("collapsed", 0.1, "features the same for all clips"),
            "features have at most {level:g} of the spread that they started with",
            below=True,
        ),
        Threshold(
            "suspect",
            0.5,
            "features almost the same for all clips",
            "spread at most {level:g} of the start",
            below=True,
        ),
    ),
)
SPREAD_COLUMNS = each(
    MODALITIES, LoggedColumn("feature_spread_{}", "student feature spread, {}", "diagnostic", sign=FLAT)
)


def feature_spread(features_BD: Tensor) -> Tensor:
    """Returns the features' standard deviation over clips, averaged over dimensions; 0 if all clips look the same."""
    return features_BD.std(0).mean()
