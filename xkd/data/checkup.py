"""Finds what is wrong with single clips, and what does not fit the settings or the encoder that they are meant for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from xkd.data import overlap
from xkd.data.finding import Clip, Expected, Finding, found_in
from xkd.data.measure import Moments

CLIPPED = 0.001  # share of the samples: 0.1 % in flat tops is heard
RATE = 0.95  # 29.97 frames stand for 30, but 25 do not
SHORT = 0.5  # of a view: more than half of what the network sees would be filled in
APART, APART_SECONDS = 0.1, 0.5  # difference between the lengths of sound and frames: headers and encoders round
MEAN, STD = 0.25, 0.2  # statistics: mean off by more than that of a std, std by more than that of itself
SURE = 3.0  # standard errors that statistics must be off beyond the above: few clips vary by chance
BLUE = 0.04  # blue above red: by half of what ImageNet's mean has red above blue
BLUE_CLIPS, BLUE_SHARE = 5, 0.75  # of fewer clips nothing can be said; one blue clip among many says nothing
READ_AS = ((44.1, 16), (48, 16), (22.05, 16), (44.1, 22.05), (16, 8), (44.1, 8), (48, 8))  # kHz


def examine(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Returns all findings, those about the whole set first."""
    checks = (streams, rates, statistics, silence, clipping, lengths_apart, stills, colours, short, small)
    found = [*overlap.examine(clips), *(one for check in checks for one in check(clips, expected))]
    return [finding for finding in found if finding.clips]


def streams(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds clips without the stream that an encoder needs."""
    lacking = {m: [clip for clip in clips if getattr(clip, m) is None] for m in expected.needs}
    return [found_in(f"no {m}", without, clips, "have none", "leave them out") for m, without in lacking.items()]


def rates(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds rates below those expected; of prepared clips, any other rate."""
    found = []
    for m, key, unit, wanted, harm in (
        ("video", "fps", "frames per second", expected.fps, "frames would be repeated"),
        ("audio", "sample_rate", "samples per second", expected.sample_rate, "upper bands would be empty"),
    ):
        having = [(clip, getattr(getattr(clip, m), key)) for clip in clips if getattr(clip, m)]
        if wanted:
            off = [(c, rate) for c, rate in having if rate < RATE * wanted or (expected.exact and rate * RATE > wanted)]
            low, high = (f"{pick((rate for _, rate in off), default=0):.4g}" for pick in (min, max))
            what = f"have {low if low == high else f'{low} to {high}'} {unit}, {expected.whose} {wanted:g}"
            do = "prepare them again, from the original files" if expected.exact else f"{harm}: find better files"
            found.append(found_in(f"{m} rate", [c for c, _ in off], [c for c, _ in having], what, do))
    return found


def total(clips: Iterable[Clip]) -> Moments:
    """Adds up the log-mel statistics of all clips that are not silent."""
    return sum((one for _, one in _heard(clips)), Moments())


def _heard(clips: Iterable[Clip]) -> list[tuple[Clip, Moments]]:
    return [(c, c.audio.logmel) for c in clips if c.audio and c.audio.logmel and not c.silent]


def statistics(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds a mean or standard deviation of the log-mel that is not the one by which it will be normalised.

    Clips differ: only what is beyond the differences of so many clips, by three standard errors, is a finding.
    """
    heard, settings, whole = _heard(clips), expected.logmel, total(clips)
    if settings is None or len(heard) < 2:
        return []
    means = np.array([one.mean for _, one in heard])
    squares = np.array([one.squares / one.count for _, one in heard]) + (means - whole.mean) ** 2
    sure_mean, sure_square = (SURE * float(np.std(of, ddof=1)) / math.sqrt(len(of)) for of in (means, squares))
    off, ratio = abs(whole.mean - settings.mean), (whole.std / settings.std) ** 2
    slack = sure_square / settings.std**2
    if off <= MEAN * settings.std + sure_mean and (1 - STD) ** 2 - slack <= ratio <= (1 + STD) ** 2 + slack:
        return []
    decibels = 10 / math.log(10) * (whole.mean - settings.mean)
    what = (
        f"have log-mels of mean {whole.mean:.4g} and std {whole.std:.4g}, {expected.whose} {settings.mean:.4g} and "
        f"{settings.std:.4g}: {abs(decibels):.1f} dB {'louder' if decibels > 0 else 'quieter'} on average"
    )
    names = [clip for clip, _ in heard]
    return [found_in("statistics", names, names, what, expected.mend_statistics)]


def silence(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds sound streams in which nothing is heard."""
    what = "have a sound stream that is silent (peak below -60 dBFS)"
    silent = [clip for clip in clips if clip.silent]
    return [found_in("silent", silent, [clip for clip in clips if clip.audio], what, "drop them: clips.silent")]


def clipping(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds sound that was cut off at full scale."""
    heard = [clip for clip in clips if clip.audio]
    cut = [clip for clip in heard if clip.audio and clip.audio.clipped > CLIPPED]
    what = f"have more than {CLIPPED:.1%} of their samples cut off at full scale"
    return [found_in("clipped", cut, heard, what, "find quieter recordings; a lower volume does not mend them")]


def lengths_apart(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds clips whose sound and frames last differently, as where a sample rate was declared wrongly.

    The sound alone does not tell: a recording at 44.1 kHz that is played at 16 kHz is a slow, deep one.
    """
    both = [(clip, clip.audio.seconds, clip.video.seconds) for clip in clips if clip.audio and clip.video]
    off = [(c, a / v) for c, a, v in both if abs(a - v) > max(APART_SECONDS, APART * v)]
    if not off:
        return []
    ratio = float(np.median([ratio for _, ratio in off]))
    what = f"have sound that lasts {ratio:.2f} times as long as the frames" + _as_if(ratio)
    advice = "compare rate and length with the original files"
    return [found_in("lengths apart", [c for c, _ in off], [c for c, *_ in both], what, advice)]


def _as_if(ratio: float) -> str:
    pairs = [*READ_AS, *((b, a) for a, b in READ_AS)]
    return next((f", as {a:g} kHz read as {b:g} kHz" for a, b in pairs if abs(ratio / (a / b) - 1) < 0.03), "")


def stills(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds video that does not move."""
    seen, still = [clip for clip in clips if clip.video], [clip for clip in clips if clip.still]
    return [found_in("constant", still, seen, "show one picture all the time", "leave them out where video counts")]


def colours(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds a set that is bluer than red, as one whose channels came in the order BGR.

    That is a sign, not a proof: water and sky are blue too. Of few clips nothing can be said.
    """
    seen = [clip for clip in clips if clip.video]
    means = np.array([clip.video.colours for clip in seen if clip.video]).reshape(-1, 3)
    bluer = means[:, 2] - means[:, 0]
    if len(seen) < BLUE_CLIPS or bluer.mean() <= BLUE or (bluer > 0).mean() < BLUE_SHARE:
        return []
    red, _, blue = means.mean(axis=0)
    what = f"have more blue than red (means {blue:.2f} and {red:.2f}), as if their channels were in the order BGR"
    advice = "look at skin in a frame: if it is blue, swap the channels; water and sky are blue by themselves"
    return [found_in("colours", [c for c, more in zip(seen, bluer, strict=True) if more > 0], seen, what, advice)]


def short(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds clips that fill less than half a view."""
    limit = SHORT * (expected.seconds or 0)
    brief = [clip for clip in clips if max(s.seconds for s in (clip.video, clip.audio) if s) < limit]
    what = f"are shorter than half a view of {expected.seconds or 0:g} s"
    return [found_in("short", brief, clips, what, "leave them out with clips.shortest, or shorten the views")]


def small(clips: Sequence[Clip], expected: Expected) -> list[Finding]:
    """Finds frames that would have to be enlarged."""
    seen = [clip for clip in clips if clip.video]
    little = [clip for clip in seen if clip.video and min(clip.video.size) < (expected.size or 0)]
    what = f"have a shorter side below the {expected.size} pixels that {expected.whose} want"
    return [found_in("small", little, seen, what, "they would be enlarged: find larger ones, or lower clips.size")]
