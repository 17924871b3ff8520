"""Clips that are shorter than a view: kept, and padded in one way everywhere."""

import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from clip_fakes import recipe
from media_files import write_media

from xkd.data import encode, manifest, windows
from xkd.data.clips import open_clips
from xkd.data.contact_sheet import draw_contact_sheet
from xkd.data.loader import eval_loader, train_loader
from xkd.data.views import EvalViews, TrainViews
from xkd.data.windows import Cutting, Window
from xkd.modalities import MODALITIES
from xkd.modalities.base import clip_generator
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.settings import Clips, Dataset, Limits, LogMel, Training
from xkd.show.moment import read_moment
from xkd.stages import prepare

CLIPS = Clips(seconds=1, fps=8, size=40, sample_rate=16000)


class Settings:
    """As much of Params as the stage reads."""

    dataset = "own"

    def __init__(self, **clips):
        self.datasets, self.limits = {"own": Dataset(kind="manifest", require="any")}, Limits()
        self.clips = CLIPS.model_copy(update=clips)


def write_clip(path: Path, frames: int, samples: int) -> Path:
    """Frames of rising brightness and a tone, at the rates of `CLIPS`."""
    frames_ = [np.full((40, 48, 3), 60 + 40 * number, np.uint8) for number in range(frames)]
    tone = 0.5 * np.sin(np.arange(samples) / 4)
    encode.write_clip(path, frames_ if frames else None, 8, (48, 40), tone if samples else None, 16000)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["decoded", "packed"])
def short(request, tmp_path_factory):
    """Manifest of one frame with sound, three frames with sound, one frame without, and 0.05 s of sound alone."""
    folder = tmp_path_factory.mktemp("short")
    write_clip(folder / "one.mp4", 1, 2000)
    write_clip(folder / "three.mp4", 3, 6000)
    write_media(folder / "fast.mp4", seconds=0.04, fps=25)
    write_clip(folder / "mute.mp4", 1, 0)
    write_clip(folder / "blip.mp4", 0, 800)
    (folder / "index.csv").write_text("path,label\none.mp4,a\nthree.mp4,b\nfast.mp4,a\nmute.mp4,a\nblip.mp4,b\n")
    prepare.run(Settings(pack=request.param), folder / "index.csv", folder / "out")
    return folder / "out" / "manifest.csv"


def test_every_clip_with_a_frame_or_sound_is_kept(short):
    rows = manifest.read_manifest(short).rows.set_index("id")
    assert rows["seconds"].to_dict() == {"one": 0.125, "three": 0.375, "fast": 0.125, "mute": 0.125, "blip": 0.064}


def test_the_settings_say_how_long_a_clip_must_be(tmp_path):
    write_clip(tmp_path / "one.mp4", 1, 2000)
    write_clip(tmp_path / "three.mp4", 3, 6000)
    (tmp_path / "index.csv").write_text("path\none.mp4\nthree.mp4\n")
    found = {}
    for shortest in (0.0, 0.375, 0.2):  # of clips that were made before, too
        prepare.run(Settings(shortest=shortest), tmp_path / "index.csv", tmp_path / "out")
        found[shortest] = manifest.read_manifest(tmp_path / "out" / "manifest.csv")
    assert [len(found[shortest].rows) for shortest in found] == [2, 1, 1]
    assert found[0.2].all_rows["reason"][0] == "too short: 0.12 s, at least 0.2 (clips.shortest)"
    assert found[0.0].rows["path"][1] == found[0.2].rows["path"][0]


@pytest.mark.parametrize("pad", ["hold", "loop"])
def test_views_of_short_clips_are_whole_and_filled_as_the_settings_say(short, pad):
    asked = recipe(clips=CLIPS.model_copy(update={"pad": pad}), video_local={"frames": 4})
    store = open_clips(short)
    for number, name in enumerate(store.ids):
        streams = [m for m in ("video", "audio") if store.has(m, number)]
        train = TrainViews(asked, streams)(store, number, clip_generator(0, 0, name))
        even = EvalViews(asked, streams, clips=3, crops=3)(store, number)
        shapes = {"video": [(3, 8, 32, 32), (3, 4, 24, 24)], "audio": [(1, 40, 96), (1, 40, 24)]}
        for modality in streams:
            assert [tuple(view.shape) for view in train[modality]] == shapes[modality]
            assert {tuple(view.shape) for view in even[modality]} == {shapes[modality][0]}
            assert all(view.isfinite().all() for view in [*train[modality], *even[modality]])
        if name == "three":
            levels = even["video"][0].mean((0, 2, 3)).numpy()
            order = [0, 1, 2, 2, 2, 2, 2, 2] if pad == "hold" else [0, 1, 2, 0, 1, 2, 0, 1]
            np.testing.assert_allclose(levels, levels[order], atol=1e-6)
            assert levels[0] < levels[1] < levels[2]
        if name in ("one", "blip"):  # sound at the end of the view
            loud = train["audio"][0][0, :, -20:].max() > -20
            assert bool(loud) == (pad == "loop")


def test_short_clips_make_batches_for_training_and_evaluation(short):
    rows = manifest.read_manifest(short)
    some = rows.all_rows[rows.all_rows["id"].isin(["one", "three", "fast"])].assign(status="ok")
    path = short.with_name("some.csv")
    manifest.write_manifest(path, some)
    for augment in ("cpu", "device"):
        asked = recipe(clips=CLIPS, training=Training(batch_size=3, augment=augment))
        (batch,) = train_loader(asked, path, seed=0)
        assert batch.views["video"][0].shape == (3, 3, 8, 32, 32)
        assert batch.views["audio"][1].shape == (3, 1, 40, 24)
    (batch,) = eval_loader(asked, path, None, 3)
    assert all(view.isfinite().all() for views in batch.views.values() for view in views)


def test_a_store_in_another_process_reads_the_same_without_the_manifest(short, monkeypatch):
    store = open_clips(short)
    monkeypatch.setattr(manifest, "read_manifest", lambda path: pytest.fail("the manifest was read again"))
    before = [store.video(1), store.audio(1, 0.1)]  # opens a file
    copy = pickle.loads(pickle.dumps(store))
    assert [*copy.ids, *copy.labels, copy.seconds(1)] == [*store.ids, *store.labels, store.seconds(1)]
    for one, other in zip(before, [copy.video(1), copy.audio(1, 0.1)], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("pad", ["hold", "loop"])
def test_embed_and_show_fill_short_files_in_the_same_way(tmp_path, pad):
    path = write_clip(tmp_path / "three.mp4", 3, 6000)
    cuts = {"video": Window("video", 8, 8, pad), "audio": Window("audio", 16000, 16000, pad)}
    shown = read_moment(str(path), cuts, None)
    assert all(("starts again" in note) == (pad == "loop") for note in shown.notes)
    assert len(shown.notes) == 2
    for modality, cut in cuts.items():
        assert windows.survey(str(path), Cutting((cut,))).clips == 1
        clip = cut.of(windows.read_clips(str(path), (cut,), [0]), 0)
        np.testing.assert_array_equal(clip, shown.clips[modality])
        assert len(clip) == cut.length
    order = [0, 1, 2, 2, 2, 2, 2, 2] if pad == "hold" else [0, 1, 2, 0, 1, 2, 0, 1]
    held = shown.clips["video"]
    np.testing.assert_array_equal(held, held[order])
    assert (np.abs(shown.clips["audio"][-1000:]).max() > 0.3) == (pad == "loop")


def test_the_contact_sheet_of_a_data_set_show_short_clips(short, tmp_path):
    for n_fft in (512, 8192):
        draw_contact_sheet(
            open_clips(short), 5, LogMelSpectrogram(LogMel(n_fft=n_fft, n_mels=8), 16000), tmp_path / "sheet.png"
        )
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_what_is_long_enough_is_not_changed():
    for modality, values in (("video", np.arange(24).reshape(4, 2, 3)), ("audio", np.arange(4.0))):
        for pad, length in product(("hold", "loop"), (3, 4)):
            assert MODALITIES[modality].padded(values, length, pad) is values
    audio, video = MODALITIES["audio"], MODALITIES["video"]
    assert audio.padded(np.arange(3.0), 7).tolist() == [0, 1, 2, 0, 0, 0, 0]
    assert audio.padded(np.arange(3.0), 7, "loop").tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert video.padded(np.arange(3), 5).tolist() == [0, 1, 2, 2, 2]
