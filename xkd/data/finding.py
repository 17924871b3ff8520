"""What a checkup speaks of: clips with what was measured of them, what is expected of them, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xkd.data.measure import Measured, Sight, Sound
from xkd.data.transcode import SILENT
from xkd.settings import LogMel

NAMED = 3
# Of 255: what encoding alone changes in the cells of a picture that stays.
STILL = 2


@dataclass(frozen=True)
class Clip:
    """A clip of the set.

    Attributes:
        part: split, or fold, that its source must not share with others; empty: none.
        sources: of video and audio.
    """

    name: str
    found: Measured
    part: str = ""
    label: str = ""
    sources: frozenset[str] = frozenset()

    @property
    def video(self) -> Sight | None:
        """What was measured of the frames."""
        return self.found.video

    @property
    def audio(self) -> Sound | None:
        """What was measured of the sound."""
        return self.found.audio

    @property
    def silent(self) -> bool:
        """Whether there is sound in which nothing is heard."""
        return self.audio is not None and self.audio.peak < SILENT

    @property
    def still(self) -> bool:
        """Whether there is video that does not move."""
        return self.video is not None and self.video.motion <= STILL


@dataclass(frozen=True)
class Expected:
    """What the settings or an encoder expect of clips; None: nothing.

    Attributes:
        whose: "the settings" or "the encoder".
        exact: the clips were prepared: they are read at their own rate, without a conversion.
        needs: modalities that every clip must have.
        mend_statistics: what to do about other log-mel statistics.
    """

    whose: str
    exact: bool = False
    fps: float | None = None
    size: int | None = None
    sample_rate: int | None = None
    seconds: float | None = None
    logmel: LogMel | None = None
    needs: tuple[str, ...] = ()
    mend_statistics: str = "put the lines above into params.yaml"


@dataclass(frozen=True)
class Finding:
    """One kind of fault, the clips that have it, of how many that could have it, and what to do."""

    kind: str
    clips: tuple[str, ...]
    of: int
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {len(self.clips)} of {self.of} clips ({named(self.clips)}) {self.what}; {self.advice}"


def named(names: Sequence[str]) -> str:
    """Returns the first names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def found_in(kind: str, clips: Iterable[Clip], of: Sequence[Clip], what: str, advice: str) -> Finding:
    """Makes a finding about some clips of those that could have the fault."""
    return Finding(kind, tuple(clip.name for clip in clips), len(of), what, advice)
