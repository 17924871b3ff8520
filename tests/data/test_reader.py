"""Cuts of prepared clips: the same values however they are read."""

import numpy as np
import pytest
from media_files import damage, write_media

from xkd.data import decode, encode
from xkd.data.decode import MediaError, Video
from xkd.data.reader import ClipReader

FRAMES, SAMPLES = 40, 80000


@pytest.fixture(scope="module", params=[(32, 32), (40, 30), (228, 128)], ids=str)
def clip(request, tmp_path_factory):
    """A noisy clip of five seconds as `prepare` writes it, and all that decord and PyAV find in it."""
    path, (width, height) = tmp_path_factory.mktemp("clip") / "clip.mp4", request.param
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (FRAMES, height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    frames = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
    sound = random.standard_normal(SAMPLES).astype(np.float32) * 0.2
    encode.write_clip(path, iter(frames), 8, (width, height), sound, 16000, encode.FOR_TRAINING)
    whole = np.rint(decode.read_audio(path, 16000) * 32767).astype(np.int16)
    return path, Video(path).frames(np.arange(FRAMES)), whole


def test_cuts_are_parts_of_the_whole_in_whatever_order_they_are_read(clip):
    path, frames, whole = clip
    random = np.random.default_rng(1)
    for _ in range(4):
        reader = ClipReader(path)
        for first, sample in random.integers(0, (FRAMES, 40000), (4, 2)).tolist():
            np.testing.assert_array_equal(reader.frames(first, 8), frames[first : first + 8])
            np.testing.assert_array_equal(reader.samples(sample, 16000), whole[sample : sample + 16000])
            np.testing.assert_array_equal(reader.samples(0, 3000), whole[:3000])
    np.testing.assert_array_equal(ClipReader(path).frames(), frames)


def test_a_cut_behind_the_end_is_the_last_frame(clip):
    path, frames, _ = clip
    np.testing.assert_array_equal(ClipReader(path).frames(FRAMES + 5, 8), frames[-1:])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_files_of_other_makers_are_decoded_by_number(tmp_path, codec):
    """With frames that depend on later ones, and time stamps of their own."""
    path = write_media(tmp_path / "other.mp4", seconds=3, fps=8, codec=codec)
    every = Video(path).frames(np.arange(24))
    for first in (0, 5, 17, 23):
        np.testing.assert_array_equal(ClipReader(path).frames(first, 4), every[first : first + 4])


def test_damage_is_a_media_error(tmp_path):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(MediaError, match="unreadable"):
        ClipReader(path)
    with pytest.raises(MediaError, match="unreadable"):
        ClipReader(damage(write_media(tmp_path / "holes.mp4"))).frames()
    with pytest.raises(MediaError, match="no sound"):
        ClipReader(write_media(tmp_path / "silent.mp4", audio=False)).samples(0, 100)
