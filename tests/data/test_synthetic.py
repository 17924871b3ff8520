"""The embedded clips: the same on every machine, balanced, without leaks, and recognisable."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from xkd.data import synthetic
from xkd.data.synthetic import recordings, render, scene, sound
from xkd.data.synthetic.knobs import PICTURE, SOUND

SEED = 5


def sources(split, count):
    clips = [render(split, index, SEED) for index in range(count)]
    return {clip.video_source for clip in clips}, {clip.audio_source for clip in clips}


def test_clip_depends_on_its_arguments_only():
    alone = render("train", 7, SEED)
    for index in (3, 9):
        render("train", index, SEED)
    again = render("train", 7, SEED)
    assert np.array_equal(alone.frames, again.frames)
    assert np.array_equal(alone.samples, again.samples)
    for split, index, seed in (("test", 7, SEED), ("train", 17, SEED), ("train", 7, SEED + 1)):
        other = render(split, index, seed)
        assert not np.array_equal(alone.frames, other.frames)
        assert not np.array_equal(alone.samples, other.samples)


def test_shapes_ranges_and_balance():
    clips = [render("test", index, SEED) for index in range(20)]
    for clip in clips:
        assert clip.frames.shape == (8, PICTURE.canvas, PICTURE.canvas, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.cover.shape == clip.frames.shape[:3]
        assert (clip.samples.shape, clip.samples.dtype) == ((8000,), np.int16)
        assert 0.05 * 2**15 < np.abs(clip.samples.astype(int)).max() < 2**15
    labels = [clip.label for clip in clips]
    assert sorted(labels[:10]) == sorted(set(labels)) == sorted(labels[10:])


def test_no_scan_and_no_recording_is_in_both_splits():
    train, test = sources("train", 150), sources("test", 150)
    assert not train[0] & test[0]
    assert not train[1] & test[1]


def test_every_scan_is_used_before_one_returns():
    scans = {
        split: np.concatenate([scene.scans_of(split, digit, SEED) for digit in range(10)])
        for split in ("train", "test")
    }
    assert len(scans["train"]) == 1300
    assert len(scans["test"]) == 497
    assert len(np.unique(np.concatenate(list(scans.values())))) == 1797
    used = [render("test", 10 * turn, SEED).video_source for turn in range(len(scene.scans_of("test", 0, SEED)))]
    assert len(set(used)) == len(used)


def test_digit_stays_inside_the_frame_and_moves():
    plain = replace(PICTURE, clutter=0, grain=0, saturation=0)
    for number in range(20):
        frames, cover = scene.draw(np.ones((8, 8)), [], np.random.default_rng(number), plain)
        ground = frames[0, 0, 0]
        border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
        assert (border == ground).all()
        assert (frames == ground).all(axis=-1).mean() < 0.85
        assert (frames[0] != frames[-1]).any()
        inked = (frames != ground).any(axis=-1)
        assert inked[cover > 0.05].all()
        assert not inked[cover == 0].any()


def test_pieces_of_other_scans_lie_behind_the_digit():
    plain = replace(PICTURE, clutter=0, grain=0, saturation=0)
    scan = scene.scans()[0][0]
    alone, cover = scene.draw(np.zeros((8, 8)), [scan], np.random.default_rng(0), plain)
    assert cover.max() == 0
    piece = (alone != alone[0, 0, 0]).any(axis=-1).mean()
    whole, cover = scene.draw(scan, [], np.random.default_rng(0), plain)
    assert 0 < piece < 0.6 * (cover > 0.01).mean()


@pytest.mark.parametrize(("split", "indices"), [("train", range(5, 30)), ("test", range(5))])
def test_digit_is_shared_and_recordings_keep_the_official_split(split, indices):
    seen = set()
    for index in range(60):
        clip = render(split, index, SEED)
        digit, _, number = clip.audio_source.split("_")
        assert scene.scans()[1][int(clip.video_source.removeprefix("scan"))] == int(digit)
        assert synthetic.DIGIT_NAMES[int(digit)] == clip.label
        assert int(number) in indices
        seen.add(clip.audio_source)
    assert len(seen) == 60


def test_unpaired_clips_say_another_digit_than_they_show():
    pairs = [(render("train", index, SEED), render("train", index, SEED, paired=False)) for index in range(100)]
    assert all(np.array_equal(one.frames, other.frames) for one, other in pairs)
    shown = [synthetic.DIGIT_NAMES.index(other.label) for _, other in pairs]
    spoken = [int(other.audio_source[0]) for _, other in pairs]
    assert not any(a == b for a, b in zip(shown, spoken, strict=True))
    assert len(set(zip(shown, spoken, strict=True))) > 50


def test_words_are_whole_and_noise_has_the_level_asked_for():
    words = recordings.words()
    assert len(words) == 1800
    assert all(800 < len(word) <= 8000 and np.abs(word.astype(int)).max() == 127 * 256 for word in words.values())
    word = words["3_theo_7"]
    for noise in (0.5, 1.0):
        knobs = replace(SOUND, level=(0.1, 0.1), noise=(noise, noise))
        mixed = [sound.mix(word, [], np.random.default_rng(number), knobs) for number in range(20)]
        before = np.concatenate([one[:400] for one in mixed]).astype(float)  # the word lies around the middle
        assert np.sqrt((before**2).mean()) / 32767 == pytest.approx(0.1 * noise, rel=0.05)


def test_another_processor_renders_the_same_clips():
    """NumPy is told to do without what newer processors have."""
    code = "from xkd.data import synthetic; print(synthetic.digest())"
    newer = " ".join(np._core._multiarray_umath.__cpu_dispatch__)
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": newer, "OPENBLAS_CORETYPE": "Prescott"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == synthetic.digest() == synthetic.DIGEST
