"""The embedded clips: reproducible, balanced, without leaks, and recognisable."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from xkd.data.synthetic import render, scene, voice
from xkd.data.synthetic.knobs import PICTURE

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
    assert np.array_equal(alone.waveform, again.waveform)
    for split, index, seed in (("test", 7, SEED), ("train", 17, SEED), ("train", 7, SEED + 1)):
        other = render(split, index, seed)
        assert not np.array_equal(alone.frames, other.frames)
        assert not np.array_equal(alone.waveform, other.waveform)


def test_shapes_ranges_and_balance():
    clips = [render("test", index, SEED) for index in range(20)]
    for clip in clips:
        assert clip.frames.shape == (8, PICTURE.canvas, PICTURE.canvas, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.waveform.shape == (16000,)
        assert clip.waveform.dtype == np.float32
        assert 0.05 < np.abs(clip.waveform).max() <= 1
    labels = [clip.label for clip in clips]
    assert sorted(labels[:10]) == sorted(set(labels)) == sorted(labels[10:])


def test_no_scan_and_no_speaker_is_in_both_splits():
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


def test_digit_stays_inside_the_picture_and_moves():
    plain = replace(PICTURE, clutter=0, spots=0, grain=0, saturation=0)
    for number in range(20):
        frames = scene.draw_frames(np.ones((8, 8)), np.random.default_rng(number), plain).astype(int)
        ground = frames[0, 0, 0]
        border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
        assert (border == ground).all()
        assert (frames == ground).all(axis=-1).mean() < 0.8
        assert (frames[0] != frames[-1]).any()


def test_words_of_unseen_speakers_are_recognisable():
    def spectra(split, count):
        words, digits = [], []
        for index in range(count):
            rng = np.random.default_rng([index, split == "test"])
            people = voice.speakers(split, SEED)
            word = voice.speak(index % 10, people[rng.integers(len(people))], rng)
            blocks = np.array_split(word, 12)
            power = np.stack([np.abs(np.fft.rfft(block, 2048))[:1000].reshape(20, 50).sum(1) for block in blocks])
            words.append(np.log(power + 1e-3).ravel())
            digits.append(index % 10)
        return np.array(words), np.array(digits)

    train, test = spectra("train", 400), spectra("test", 200)
    scaler = StandardScaler().fit(train[0])
    probe = LogisticRegression(C=0.1, max_iter=300).fit(scaler.transform(train[0]), train[1])
    assert probe.score(scaler.transform(test[0]), test[1]) > 0.9


@pytest.mark.parametrize(("split", "indices"), [("train", range(5, 50)), ("test", range(5))])
def test_recordings_keep_the_official_split_and_the_pictures(spoken_digits_zip, split, indices):
    seen = set()
    for index in range(60):
        clip = render(split, index, SEED, str(spoken_digits_zip))
        digit, _, number = clip.audio_source.split("_")
        assert scene.scans()[1][int(clip.video_source.removeprefix("scan"))] == int(digit)
        assert int(number) in indices
        seen.add(clip.audio_source)
    assert len(seen) == 60
    synthetic = render(split, 3, SEED)
    assert np.array_equal(render(split, 3, SEED, str(spoken_digits_zip)).frames, synthetic.frames)
