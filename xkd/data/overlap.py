"""Finds what clips of a set share: content and sources, within a split and across splits, and classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from xkd.data.finding import Clip, Finding, found_in
from xkd.data.labels import classes_of
from xkd.data.listing import LABEL_SEPARATOR

ALIKE = 3  # of 255: by how much the brightness of a cell may differ where a clip was encoded again
MAJORITY = 0.9  # share of one class from which accuracy says little
APART = "put all clips of one source into one split"


def examine(clips: Sequence[Clip]) -> list[Finding]:
    """Returns what is found about the set as a whole."""
    groups = [*_same_frames(clips), *_same_sound(clips)]
    return [leak(clips, groups), leak_by_source(clips), duplicate(clips, groups), *labels(clips)]


def leak(clips: Sequence[Clip], groups: Iterable[Sequence[Clip]]) -> Finding:
    """Finds held-out clips with the content of another split."""
    what = "have the frames or the sound of a clip in another split"
    return found_in("leak", _across(groups), _held_out(clips), what, f"take one of them out, and {APART}")


def leak_by_source(clips: Sequence[Clip]) -> Finding:
    """Finds held-out clips with a source of another split."""
    by_source = defaultdict(list)
    for clip in clips:
        for source in clip.sources:
            by_source[source].append(clip)
    what = "have a source that another split has too"
    return found_in("leak by source", _across(by_source.values()), _held_out(clips), what, APART)


def duplicate(clips: Sequence[Clip], groups: Iterable[Sequence[Clip]]) -> Finding:
    """Finds clips with the content of another clip of the same split."""
    again = [c for group in groups for c in group if sum(other.part == c.part for other in group) > 1]
    what = "have the frames or the sound of another clip"
    return found_in("duplicate", _once(again), clips, what, "keep one of each")


def labels(clips: Sequence[Clip]) -> list[Finding]:
    """Finds sets of one class, or nearly so, and test clips of classes without a training clip."""
    labelled = [(clip, clip.label.split(LABEL_SEPARATOR)) for clip in clips if clip.label]
    counts = Counter(label for _, several in labelled for label in several)
    if len(labelled) < 2:
        return []
    trained = set(classes_of(clip.label for clip, _ in labelled if clip.part == "train"))
    tested = [clip for clip, several in labelled if clip.part == "test" and trained.isdisjoint(several)]
    whole = [clip for clip, _ in labelled]
    (label, most), rare = counts.most_common(1)[0], min(counts.values())
    of_it = [clip for clip, several in labelled if label in several]
    found = []
    if trained:
        what = "are tested, but no training clip has their class"
        found.append(found_in("unknown class", tested, whole, what, "train on that class, or leave them out"))
    if len(counts) == 1:
        found.append(found_in("one class", of_it, whole, f"are '{label}', and there is no other class", "add another"))
    elif most > MAJORITY * len(labelled):
        what = f"are '{label}', so that a constant guess is right on them; the rarest class has {rare}"
        found.append(found_in("balance", of_it, whole, what, "add clips of other classes"))
    return found


def _same_sound(clips: Iterable[Clip]) -> Iterable[list[Clip]]:
    """Groups clips whose samples are equal; all silence is the same."""
    groups = defaultdict(list)
    for clip in clips:
        if clip.audio and not clip.silent:
            groups[clip.audio.digest].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def _same_frames(clips: Iterable[Clip]) -> Iterable[list[Clip]]:
    """Groups clips whose frames look alike, mirrored or encoded again; pictures that stay may do so by chance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    moving = [clip for clip in clips if clip.video and not clip.still]
    if len(moving) < 2:
        return []
    points = np.stack([clip.video.signature.ravel() for clip in moving if clip.video]).astype(np.float32)
    pairs = KDTree(points).query_pairs(ALIKE, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(moving),) * 2)
    groups = defaultdict(list)
    for clip, number in zip(moving, connected_components(links, directed=False)[1], strict=True):
        groups[number].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def _across(groups: Iterable[Sequence[Clip]]) -> list[Clip]:
    """Returns the held-out clips of groups that lie in several splits."""
    return _once(_held_out([c for group in groups if len({c.part for c in group} - {""}) > 1 for c in group]))


def _held_out(clips: Iterable[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.part not in ("", "train")]


def _once(clips: Iterable[Clip]) -> list[Clip]:
    return list({clip.name: clip for clip in clips}.values())
