"""Barlow Twins between the modalities (Zbontar et al., 2021, equation 1).

Each logit of a clip's video should vary over the batch as the same logit of its audio does, and as no other.
"""

from pydantic import Field
from torch import Tensor

from xkd import registry
from xkd.logged import LoggedColumn
from xkd.objectives.term import Outputs, Term, Values
from xkd.settings.objective import TermSettings


class BarlowSettings(TermSettings):
    redundancy: float = Field(0.005, ge=0, description="weight of the entries off the diagonal")


@registry.terms.register("barlow")
class Barlow(Term):
    Settings = BarlowSettings
    columns = (LoggedColumn("barlow", "Barlow Twins, students"),)
    needs_teachers = True  # for the projection heads
    compares_clips = True

    def forward(self, outputs: Outputs) -> Values:
        video_RK, audio_RK = (standardised(rows) for rows in outputs.student_RK.values())
        correlation_KK = video_RK.T @ audio_RK / len(video_RK)
        diagonal_K = correlation_KK.diagonal()
        others = correlation_KK.square().sum() - diagonal_K.square().sum()
        return Values({"barlow": (1 - diagonal_K).square().sum() + self.settings.redundancy * others})


def standardised(rows_RK: Tensor) -> Tensor:
    """Scales each column to zero mean and unit variance over the rows."""
    return (rows_RK - rows_RK.mean(0)) / (rows_RK.var(0, correction=0) + 1e-12).sqrt()
