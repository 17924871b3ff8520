import math

import pytest
import torch
from clip_fakes import ENVELOPE, FPS, RATE, FakeClips, recipe
from torch._subclasses.fake_tensor import FakeTensorMode
from waits import Waits

from xkd.data.loader import Batch
from xkd.data.views import EvalViews, TrainViews
from xkd.errors import UserError
from xkd.modalities.base import clip_generator
from xkd.settings import Clips, LogMel, Training

MEAN, STD = (torch.tensor(v).view(3, 1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def views_of(settings, store, number: int, **choice):
    return TrainViews(settings, **choice)(store, 0, clip_generator(0, number, store.ids[0]))


def pixels(view: torch.Tensor) -> torch.Tensor:
    """Integer columns, rows and frame numbers (3, T, H, W) of a view of FakeClips."""
    return ((view * STD + MEAN) * 255).round().int()


def frames_seen(view: torch.Tensor) -> list[int]:
    return pixels(view)[2, :, 0, 0].tolist()


def frame_heard(view: torch.Tensor, store: FakeClips, hop: int, column: int) -> int:
    """The video frame during which a column of the log-mel sounded, from the loudness of the tone."""
    steady = TrainViews(recipe()).cutters["audio"].logmel(store.tone[:RATE].float())
    fade = steady.max() - view[0, :, column].max()
    return round(float(fade) / (-2 * math.log(ENVELOPE)))


def test_shapes_are_those_of_the_recipe():
    settings = recipe(views=recipe().views.model_copy(update={"local_views": 2}))
    views = views_of(settings, FakeClips(), 0)
    assert [tuple(view.shape) for view in views["video"]] == [(3, 8, 32, 32), (3, 2, 24, 24), (3, 2, 24, 24)]
    assert [tuple(view.shape) for view in views["audio"]] == [(1, 40, 96), (1, 40, 24), (1, 40, 24)]
    assert all(view.dtype == torch.float32 for both in views.values() for view in both)


@pytest.mark.parametrize("seconds", [1.0, 1.2, 3.0], ids=["nominal", "little longer", "long"])
def test_global_views_of_both_modalities_cover_the_same_seconds(seconds):
    store, starts = FakeClips(seconds=seconds), set()
    for number in range(120):
        views = views_of(recipe(), store, number)
        seen = frames_seen(views["video"][0])
        assert seen == list(range(seen[0], seen[0] + 8))
        heard = [frame_heard(views["audio"][0], store, 160, column) for column in (6, 44, 85)]
        assert heard == [seen[0] + math.floor(column * 160 / RATE * FPS) for column in (6, 44, 85)]
        starts.add(seen[0])
    assert starts == set(range(round(seconds * FPS) - 8 + 1))


def test_local_views_have_their_own_times_in_the_whole_clip():
    store, video, audio = FakeClips(), [], []
    for number in range(80):
        views = views_of(recipe(), store, number)
        video.append(frames_seen(views["video"][1])[0])
        audio.append(frame_heard(views["audio"][1], store, 160, 12))
    assert set(video) == set(range(7))
    assert {1, 2, 3, 4, 5, 6} <= set(audio)
    assert abs(torch.corrcoef(torch.tensor([video, audio]).float())[0, 1]) < 0.3


def test_several_local_views_differ():
    settings = recipe(views=recipe().views.model_copy(update={"local_views": 3}))
    views = views_of(settings, FakeClips(), 0)
    crops = {tuple(pixels(view)[:, 0, 0, 0].tolist()) for view in views["video"][1:]}
    assert len(crops) == 3


def test_views_that_a_run_does_not_need_are_not_read():
    class NoAudio(FakeClips):
        def audio(self, *args):
            raise AssertionError("audio was read")

    assert set(views_of(recipe(), NoAudio(), 0, modalities=("video",))) == {"video"}
    assert len(views_of(recipe(), FakeClips(), 0, local_views=False)["audio"]) == 1


def test_global_views_do_not_depend_on_what_is_made_beside_them():
    settings = recipe(
        video_global={"jitter": (0.4, 0.4, 0.4, 0.2), "crop_area": (0.2, 1)}, audio_global={"volume": 0.3}
    )
    store = FakeClips(seconds=2)
    everything = views_of(settings, store, 5)
    assert torch.equal(everything["video"][0], views_of(settings, store, 5, modalities=("video",))["video"][0])
    assert torch.equal(everything["audio"][0], views_of(settings, store, 5, modalities=("audio",))["audio"][0])
    assert torch.equal(everything["audio"][0], views_of(settings, store, 5, local_views=False)["audio"][0])


def test_an_augmentation_of_zero_strength_leaves_the_crops_of_others_alone():
    store = FakeClips()
    plain, flipped = (views_of(recipe({"flip": flip}), store, 3)["video"][0] for flip in (0, 1))
    assert torch.equal(plain.flip(-1), flipped)


def test_volume_scales_the_waveform():
    store, offsets = FakeClips(), []
    for number in range(60):
        loud = views_of(recipe(audio_global={"volume": 0.2}), store, number)["audio"][0]
        plain = views_of(recipe(), store, number)["audio"][0]
        offsets.append(float(loud.max() - plain.max()))
    gains = [math.exp(offset / 2) for offset in offsets]
    assert 0.8 <= min(gains) < 0.85
    assert 1.15 < max(gains) <= 1.2


def test_logmel_of_a_view_is_columns_of_that_of_its_clip():
    store = FakeClips()
    whole = TrainViews(recipe()).cutters["audio"].logmel(store.audio(0))
    seen, local = views_of(recipe(), store, 0)["audio"]
    torch.testing.assert_close(seen, whole[..., : seen.shape[-1]])
    cuts = whole.unfold(-1, local.shape[-1], 1).movedim(-2, 0)
    starts = [first for first, cut in enumerate(cuts) if torch.allclose(local, cut, atol=1e-4)]
    assert len(starts) == 1


def test_remembered_audio_is_the_same_in_the_next_epoch():
    store, settings = FakeClips(), recipe(audio_global={"volume": 0.2})
    packed = settings.model_copy(update={"clips": settings.clips.model_copy(update={"pack": True})})
    views = TrainViews(packed)
    for epoch in range(3):
        fresh = TrainViews(settings)(store, 0, clip_generator(0, epoch, "clip"))["audio"]
        again = views(store, 0, clip_generator(0, epoch, "clip"))["audio"]
        assert all(torch.equal(a, b) for a, b in zip(fresh, again, strict=True))


def test_released_view_takes_every_sample_of_a_clip_of_four_seconds():
    settings = recipe(
        {"frames": 32},
        {"frames": 8},
        {"frames": 448},
        {"frames": 112},
        clips=Clips(size=40),
        logmel=LogMel(),
    )
    store = FakeClips(seconds=4)
    view = EvalViews(settings)(store, 0)["audio"][0]
    assert torch.equal(view, EvalViews(settings).cutters["audio"].logmel(store.audio(0)))


def test_resized_crop_of_the_logmel_is_applied_where_asked():
    store = FakeClips()
    plain, cropped = (views_of(recipe(audio_local={"resized_crop": on}), store, 0)["audio"] for on in (False, True))
    assert torch.equal(plain[0], cropped[0])
    assert plain[1].shape == cropped[1].shape
    assert not torch.allclose(plain[1], cropped[1])


def test_tracks_that_end_early_hold_the_last_frame_and_go_silent():
    store = FakeClips()
    store._video, store._audio = store._video[:6], store._audio[:8000]
    views = views_of(recipe(), store, 0)
    assert frames_seen(views["video"][0]) == [0, 1, 2, 3, 4, 5, 5, 5]
    silence = math.log(1e-12)
    assert float(views["audio"][0][..., 54:].max()) == pytest.approx(silence, abs=0.1)
    assert float(views["audio"][0][..., :48].max(1).values.min()) > silence + 10


def test_evaluation_takes_the_middle_and_never_changes():
    store, views = FakeClips(seconds=2, rows=41, columns=60), EvalViews(recipe())
    view = views(store, 0)
    assert frames_seen(view["video"][0]) == list(range(4, 12))
    assert pixels(view["video"][0])[:2, 0, 0, 0].tolist() == [14, 4]
    assert [frame_heard(view["audio"][0], store, 160, column) for column in (6, 85)] == [4, 10]
    assert torch.equal(view["video"][0], views(store, 3)["video"][0])


def test_evaluation_enlarges_frames_smaller_than_the_view():
    view = EvalViews(recipe())(FakeClips(rows=16, columns=20), 0)["video"][0]
    assert view.shape == (3, 8, 32, 32)
    assert 0.75 < float(pixels(view)[1, 0, -1, 0]) / 15 <= 1


def test_clips_in_the_store_are_not_written_to():
    store = FakeClips()
    before = store._video.clone(), store._audio.clone()
    settings = recipe({"jitter": (0.4, 0.4, 0, 0), "flip": 1}, audio_global={"volume": 0.2})
    views_of(settings, store, 0)
    EvalViews(settings)(store, 0)
    assert torch.equal(before[0], store._video)
    assert torch.equal(before[1], store._audio)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"clip_id": "b"}])
def test_draws_differ_between_seeds_epochs_and_clips(change):
    def numbers(seed=0, epoch=0, clip_id="a"):
        return torch.rand(8, generator=clip_generator(seed, epoch, clip_id))

    assert torch.equal(numbers(), numbers())
    assert not torch.equal(numbers(), numbers(**change))


def test_draws_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    settings = recipe({"jitter": (0.4, 0.4, 0.4, 0.2), "crop_area": (0.2, 1), "blur": 1, "grey": 0.5, "flip": 0.5})
    views_of(settings, FakeClips(), 0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_global": {"frames": 10}}, r"views.video_global.frames: 10, but a clip of clips.seconds 1 has 8"),
        ({"audio_local": {"frames": 104}}, r"views.audio_local.frames: 104, .* has 101"),
        ({"logmel": LogMel(n_fft=8192, hop=160, n_mels=40)}, r"logmel.n_fft: 8192 is too long for views"),
    ],
)
def test_views_that_do_not_fit_a_clip_are_a_user_error(changes, message):
    with pytest.raises(UserError, match=message):
        TrainViews(recipe(**changes))


def test_a_clip_smaller_than_a_plain_crop_is_named():
    with pytest.raises(UserError, match=r"clip clip0: 40 x 24 pixels is smaller than a view of 32"):
        views_of(recipe(), FakeClips(rows=24), 0)


@pytest.mark.parametrize("shape", [(40, 100), (100, 40)], ids=["wide", "tall"])
def test_several_clips_and_crops_of_a_long_video(shape):
    """Moments from the first to the last; places from one end of the longer side to the other."""
    store = FakeClips(seconds=3.0, rows=shape[0], columns=shape[1])
    views = EvalViews(recipe(), clips=3, crops=3)(store, 0)
    seen = views["video"]
    assert [frames_seen(view)[0] for view in seen] == [0, 0, 0, 8, 8, 8, 16, 16, 16]
    corners = [tuple(pixels(view)[:2, 0, 0, 0].tolist()) for view in seen[:3]]
    assert corners == ([(0, 4), (34, 4), (68, 4)] if shape[1] > shape[0] else [(4, 0), (4, 34), (4, 68)])
    assert [frame_heard(view, store, 160, 6) for view in views["audio"]] == [0, 8, 16]
    usual = EvalViews(recipe())(store, 0)
    torch.testing.assert_close(seen[4], usual["video"][0])
    torch.testing.assert_close(views["audio"][1], usual["audio"][0])


def test_what_a_global_view_already_read_is_not_read_again():
    """Local views that overlap with it read the rest only, and are the same as if they read everything."""

    class Counting(FakeClips):
        asked = 0.0

        def video(self, index, start_seconds=0.0, seconds=None):
            self.asked += seconds
            return super().video(index, start_seconds, seconds)

    settings = recipe({"frames": 16}, {"frames": 8}, clips=Clips(seconds=2, size=40))
    store, saved = Counting(seconds=6), 0
    for number in range(40):
        store.asked = 0.0
        views = views_of(settings, store, number)
        whole, local = (frames_seen(view) for view in views["video"])
        assert local == list(range(local[0], local[0] + 8))
        overlap = len(set(whole) & set(local))
        assert store.asked * FPS == 16 + 8 - overlap
        saved += overlap
    assert saved > 60


def test_audio_that_overlaps_is_that_of_the_clip():
    settings = recipe(audio_global={"frames": 96}, audio_local={"frames": 48})
    store = FakeClips(seconds=2.5)
    store._audio = torch.randn(40000, generator=torch.Generator().manual_seed(0)) * 0.2
    for number in range(30):
        start = clip_generator(0, number, store.ids[0])
        local = views_of(settings, store, number)["audio"][1]
        draw = torch.rand(2, 2, 38, generator=start)[1, 1, 0].item()
        first = round(draw * (2.5 - 48 * 160 / RATE) * RATE)
        cut = store._audio[first : first + 48 * 160]
        torch.testing.assert_close(
            local, TrainViews(settings).cutters["audio"].logmel(cut)[..., :48], atol=1e-5, rtol=0
        )


def test_augmenting_on_a_gpu_waits_for_nothing_and_copies_the_draws_once():
    jitter = {"jitter": (0.4, 0.4, 0.4, 0.2), "flip": 0.5}
    local = {"grey": 0.4, "blur": 0.6, **jitter}
    settings = recipe(jitter, local, {"volume": 0.1}, {"resized_crop": True}, training=Training(augment="device"))
    views, generator = TrainViews(settings), clip_generator(0, 0, "clip0")
    cuts = views.cut(views.open(FakeClips(), [0]), [generator])
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        batch = Batch(["clip0"], torch.zeros(1), *cuts).to("cuda")
        copies = waits.copied
        finished = views.finish(batch.views, batch.draws)
    assert copies == 6  # labels, draws, four views
    assert waits.copied == copies
    assert waits.found == []
    assert {view.device.type for of in finished.values() for view in of} == {"cuda"}
