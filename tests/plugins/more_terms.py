"""A term with parameters of its own, a discrepancy and a refinement."""

from torch import Tensor, nn

from xkd import registry
from xkd.logged import LoggedColumn
from xkd.objectives.term import Outputs, RunSizes, Term, Values
from xkd.settings.objective import TermSettings


@registry.terms.register("guess")
class Guess(Term):
    """Audio features from those of video by a trained linear layer, both relative to the mean of the whole batch."""

    Settings = TermSettings
    columns = (LoggedColumn("guess", "guessed audio"), LoggedColumn("guess_size", "size of guesses", "diagnostic"))
    compares_clips = True

    def __init__(self, settings: TermSettings, sizes: RunSizes) -> None:
        super().__init__(settings, sizes)
        self.layer = nn.Linear(sizes.width, sizes.width)

    def forward(self, outputs: Outputs) -> Values:
        video, audio = (rows - rows.mean(0) for rows in outputs.features_BD.values())
        guessed = self.layer(video)
        return Values({"guess": (guessed - audio).square().mean()}, {"guess_size": guessed.square().mean()})


@registry.discrepancies.register("means")
def means(x_RK: Tensor, y_SK: Tensor) -> Tensor:
    """Returns the squared distance of the two means."""
    return (x_RK.mean(0) - y_SK.mean(0)).square().sum()


@registry.refinements.register("first_head")
def first_head(own_BHN: Tensor, other_BHM: Tensor) -> Tensor:
    """Returns the attention of the first head alone."""
    return own_BHN[:, 0]
