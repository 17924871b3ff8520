"""One media file as encoders see it: the right seconds, what was hidden and filled in, and what is missing, said."""

import json

import av
import matplotlib.image
import numpy as np
import pytest
import torch

from xkd.data.encode import write_clip
from xkd.data.windows import Window
from xkd.encoders import folder
from xkd.encoders.config import AudioInput, DecoderConfig, EncoderConfig, VideoInput
from xkd.errors import UserError
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.settings import LogMel
from xkd.show.drawing import heat
from xkd.show.looks import look
from xkd.show.models import gather
from xkd.show.moment import read_moment
from xkd.stages import show

FPS, RATE, SECONDS = 8, 16_000, 3.0
CUTS = {"video": Window("video", 8, FPS), "audio": Window("audio", 16_000, RATE)}
INPUTS = {
    "video": VideoInput(frames=8, fps=FPS, short_side=32, size=32),
    "audio": AudioInput(frames=96, sample_rate=RATE, logmel=LogMel(n_fft=512, hop=160, n_mels=40)),
}
PATCHES = {"video": ((4, 8, 8), (2, 4, 4)), "audio": ((8, 8), (5, 12))}


def save_encoder(path, modality, owner, decoder=False):
    patch, grid = PATCHES[modality]
    config = EncoderConfig(
        modality=modality,
        owner=owner,
        width=16,
        depth=2,
        heads=2,
        patch=patch,
        grid=grid,
        input=INPUTS[modality],
        origin="a test",
        licence="none",
        decoder=DecoderConfig(width=8, depth=1, heads=2, mask=0.75) if decoder else None,
    )
    folder.save(folder.build(config), config, path, decoder=folder.build_decoder(config) if decoder else None)
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of both modalities, students with decoders, and teachers."""
    root = tmp_path_factory.mktemp("runs") / "seed0"
    torch.manual_seed(0)
    for modality in PATCHES:
        save_encoder(root / "encoders" / f"{modality}_student", modality, "student", decoder=True)
        save_encoder(root / "encoders" / f"{modality}_teacher", modality, "teacher")
    (root / "config.json").write_text(json.dumps({"recipe": {"objective": {"refinement": "mean"}}}))
    return root


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds in which frames get brighter and audio louder: brightness = seconds / 3, loudness half of that."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    levels = np.arange(round(SECONDS * FPS)) / (SECONDS * FPS)
    frames = [np.full((32, 32, 3), 255 * level, np.uint8) for level in levels]
    times = np.arange(round(SECONDS * RATE)) / RATE
    sound = 0.5 * times / SECONDS * np.sin(2 * np.pi * 500 * times)
    write_clip(path, frames, FPS, (32, 32), sound, RATE)
    return path


@pytest.mark.parametrize(("start", "begins"), [(None, 1.0), (0.0, 0.0), (1.5, 1.5)])
def test_frames_and_audio_are_of_the_same_seconds(clip, start, begins):
    cut = read_moment(str(clip), CUTS, start)
    assert (cut.start, cut.notes) == (begins, ())
    assert cut.seconds == pytest.approx(SECONDS, abs=0.1)
    brightness = cut.clips["video"].mean((1, 2, 3)) / 255
    np.testing.assert_allclose(brightness, (begins + np.arange(8) / FPS) / SECONDS, atol=0.03)
    loudest = np.abs(cut.clips["audio"]).reshape(8, -1).max(1)
    np.testing.assert_allclose(2 * loudest, (begins + (np.arange(8) + 1) / FPS) / SECONDS, atol=0.05)


def test_a_view_past_the_end_holds_the_last_frame_and_goes_silent(clip):
    cut = read_moment(str(clip), CUTS, 2.5)
    assert [note.split(":")[0] for note in cut.notes] == ["video", "audio"]
    assert "0.50 s of a view of 1.00 s, the last frame is held" in cut.notes[0]
    assert (cut.clips["video"][4:] == cut.clips["video"][3]).all()
    assert np.abs(cut.clips["audio"][:6000]).max() > 0.4
    assert np.abs(cut.clips["audio"][-6000:]).max() < 1e-3
    assert "give a smaller --start" in read_moment(str(clip), CUTS, 3.5)


def test_what_a_file_lacks_is_said_and_the_rest_is_read(tmp_path):
    silent, blind, text = (tmp_path / name for name in ("silent.mp4", "blind.mp4", "text.mp4"))
    write_clip(silent, [np.zeros((32, 32, 3), np.uint8)] * 24, FPS, (32, 32), None, RATE)
    write_clip(blind, None, FPS, (0, 0), np.zeros(3 * RATE), RATE)
    text.write_text("no media file")
    assert (list(read_moment(str(silent), CUTS, None).clips), read_moment(str(silent), CUTS, None).notes) == (
        ["video"],
        ("no audio",),
    )
    assert (list(read_moment(str(blind), CUTS, None).clips), read_moment(str(blind), CUTS, None).notes) == (
        ["audio"],
        ("no video",),
    )
    assert read_moment(str(blind), {"video": CUTS["video"]}, None) == "no video"
    assert read_moment(str(text), CUTS, None).startswith("unreadable")


def test_weights_are_the_refinement_of_the_teachers(run_folder, clip):
    """The paper's formula, with the whole matrix: mean over M of own (outer) other, over the mean of own."""
    models, cut = gather((run_folder,)), read_moment(str(clip), CUTS, None)
    looks, notes = look(models, cut, seed=0)
    assert notes == []
    logmel = LogMelSpectrogram(INPUTS["audio"].logmel, RATE)(torch.from_numpy(cut.clips["audio"])[None])
    views = {
        "video": models.encoders["teacher", "video"].view(torch.from_numpy(cut.clips["video"])[None]),
        "audio": logmel[..., :96],
    }
    own, other = (
        models.encoders["teacher", m].encoder.encode(views[m], with_cls_attention=True).cls_attention
        for m in ("video", "audio")
    )
    for modality, one, two in (("video", own, other), ("audio", other, own)):
        weights = (torch.einsum("bhn,bhm->bhnm", one, two).mean(-1) / one.mean(-1, keepdim=True)).mean(1)[0]
        expected = (weights / weights.mean()).reshape(PATCHES[modality][1])
        np.testing.assert_allclose(looks[modality].weights, expected.detach(), rtol=1e-4)
        assert looks[modality].weighed_by == "refinement"


def test_three_quarters_are_hidden_and_filled_in_and_the_rest_is_true(run_folder, clip):
    looks, _ = look(gather((run_folder,)), read_moment(str(clip), CUTS, None), seed=0)
    for one in looks.values():
        kept = one.predicted == one.true
        assert kept.mean() == pytest.approx(0.25, abs=0.06)
        # A guess may hit a value of the flat log-mel exactly; what hides it there is as good as equal.
        np.testing.assert_allclose(one.masked[kept], one.true[kept], atol=1e-5)
    other, _ = look(gather((run_folder,)), read_moment(str(clip), CUTS, None), seed=1)
    assert (other["video"].masked != looks["video"].masked).any()


def test_without_teachers_or_decoders_attention_is_shown_and_the_rest_is_said(run_folder, clip, tmp_path):
    alone = gather((run_folder / "encoders" / "video_student",))
    looks, notes = look(alone, read_moment(str(clip), alone.windows(), None), seed=0)
    assert looks["video"].predicted is not None
    assert looks["video"].weighed_by == "attention"
    assert len(notes) == 1
    assert "teachers of both modalities" in notes[0]
    pair = tuple(save_encoder(tmp_path / m, m, "teacher") for m in PATCHES)
    looks, notes = look(gather(pair), read_moment(str(clip), CUTS, None), seed=0)
    assert {one.weighed_by for one in looks.values()} == {"refinement"}
    assert [note.split(":")[0] for note in notes] == ["no reconstruction of video and audio"]


def test_encoders_that_contradict_each_other_are_refused(run_folder, tmp_path):
    with pytest.raises(UserError, match="a second video student"):
        gather((run_folder, run_folder / "encoders" / "video_student"))
    with pytest.raises(UserError, match="no encoders there"):
        gather((tmp_path,))
    with pytest.raises(UserError, match="no such folder"):
        gather((tmp_path / "none",))


def test_a_damaged_decoder_is_named(run_folder, tmp_path):
    path = save_encoder(tmp_path / "one", "video", "student", decoder=True)
    (path / folder.DECODER).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"decoder\.safetensors: not the file"):
        gather((path,))


def test_colour_grows_with_the_weight_of_a_patch():
    frames, weights = np.full((2, 4, 4, 3), 0.5), np.array([[[0.0, 1.0], [2.0, 2.0]]])
    shown = heat(frames, weights, top=2.0)
    np.testing.assert_allclose(shown[:, :2, :2], 0.5)
    redness = shown[..., 0] - shown[..., 2]
    assert redness[0, 0, 0] < redness[0, 0, 3] < redness[0, 3, 0] == redness[1, 3, 3]


def test_image_and_video(run_folder, clip, tmp_path, capsys):
    out = tmp_path / "seen.png"
    show.run(clip, (run_folder,), out, video=True, start=None, seed=0)
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".mp4"))]
    assert matplotlib.image.imread(out).std() > 0.05
    with av.open(str(out.with_suffix(".mp4"))) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
        assert len(frames) == 8
        assert video.streams.video[0].average_rate == FPS
        assert np.abs(frames[0] - frames[-1]).max() > 50
    with av.open(str(out.with_suffix(".mp4"))) as video:
        assert sum(frame.samples for frame in video.decode(audio=0)) >= 0.9 * RATE
    with pytest.raises(UserError, match="ends in .png"):
        show.run(clip, (run_folder,), tmp_path / "seen.jpg", video=False, start=None, seed=0)
    with pytest.raises(UserError, match="no such file"):
        show.run(tmp_path / "none.mp4", (run_folder,), out, video=False, start=None, seed=0)


def test_networks_that_overflow_are_named(run_folder, clip, tmp_path):
    network, config = folder.load(run_folder / "encoders" / "video_student")
    with torch.no_grad():
        network.norm.weight.fill_(3e38)
    folder.save(
        network,
        config,
        tmp_path / "odd",
        decoder=folder.load_decoder(run_folder / "encoders" / "video_student", config),
    )
    with pytest.raises(UserError, match="odd: video: what the networks make of this clip is not finite"):
        show.run(clip, (tmp_path / "odd",), tmp_path / "out.png", video=False, start=None, seed=0)
    assert not (tmp_path / "out.png").exists()
