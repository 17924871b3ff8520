"""`xkd embed`: strides, runs, several encoders, tokens, means, and work that was killed."""

import os
import shutil
import signal
from fractions import Fraction
from functools import partial
from itertools import product

import av
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from encoder_folders import write_encoders
from forks import code_of, fork
from media_files import write_media
from torchvision.transforms.v2 import functional

from xkd import load_encoder, load_pair
from xkd.data import tracks, windows
from xkd.data.decode import Video, read_audio
from xkd.data.parts import folder_of
from xkd.encoders import folder, reading
from xkd.errors import UserError
from xkd.files import locked
from xkd.modalities import MODALITIES
from xkd.show.moment import read_moment
from xkd.stages import embed

SIZE = (54, 36)  # of frames that the encoder need not scale


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    for name, seconds in (("a", 3.4), ("b", 0.6), ("c", 2.0)):
        write_media(root / f"{name}.mp4", seconds=seconds, size=SIZE, pitch=300 + 200 * seconds)
    return root


@pytest.fixture
def read(monkeypatch):
    """Reads in this process, and lists the files that are read, once per task."""
    files = []

    def in_this_process(function, tasks, *_, **__):
        for task in tasks:
            if function is windows.read_clips:
                files.append(task[0].rsplit("/", 1)[-1])
            yield function(*task)

    monkeypatch.setattr(reading, "run_guarded", in_this_process)
    return files


@pytest.fixture
def embedded(read, tmp_path):
    def call(encoder, *sources, name="out.parquet", **options):
        embed.run(encoder, sources, tmp_path / name, 4, force=True, **options)
        table = pd.read_parquet(tmp_path / name)
        return table.assign(file=[file.rsplit("/", 1)[-1] for file in table["file"]])

    return call


def frames_of(path, fps=8):
    video = Video(path)
    return video.frames(video.at_rate(fps))


@pytest.mark.parametrize(
    ("stride", "starts"), [(0.5, [0, 0.5, 1, 1.5, 2, 2.5]), (1.25, [0, 1.25, 2.5]), (None, [0, 1, 2])]
)
@pytest.mark.parametrize("at_once", [16.0, 0.1])
def test_clips_begin_at_every_stride_and_hold_what_is_there(run, media, embedded, monkeypatch, stride, starts, at_once):
    monkeypatch.setattr(tracks.VideoTrack, "seconds_at_once", at_once)
    monkeypatch.setattr(tracks, "CHUNK_PIXELS", 1)
    table = embedded(run / "encoders" / "video_student", media / "a.mp4", stride=stride)
    model, frames = load_encoder(run / "encoders" / "video_student"), frames_of(media / "a.mp4")
    assert table["start"].tolist() == starts
    np.testing.assert_allclose(table["end"], np.minimum(np.add(starts, 1), len(frames) / 8))
    for vector, start in zip(table["vector"], starts, strict=True):
        clip = MODALITIES["video"].padded(frames[round(start * 8) :][:8], 8)
        np.testing.assert_allclose(vector, model(clip), atol=1e-5)


def test_a_run_gives_rows_of_both_modalities_and_joint_ones(run, media, embedded, tmp_path, capsys):
    write_media(tmp_path / "silent.mp4", audio=False, size=SIZE)
    table = embedded(run, media, tmp_path / "silent.mp4", stride=0.8)
    assert list(table.columns) == ["file", "start", "end", "video", "audio", "joint"]
    assert "silent.mp4: no audio" in capsys.readouterr().err
    rows = table[table["file"] == "a.mp4"]
    frames, samples = frames_of(media / "a.mp4"), read_audio(media / "a.mp4", 16000)
    late = windows.survey(str(media / "a.mp4"), windows.Cutting(tuple(cuts(run).values()))).delay
    for _, row in rows.iterrows():
        first, sample = round(row["start"] * 8), round(row["start"] * 16000) - round(late * 16000)
        sound = np.pad(samples, (max(-sample, 0), 15360))[max(sample, 0) :][:15360]
        clip = MODALITIES["video"].padded(frames[first : first + 8], 8)
        for name, vector in load_pair(run)(clip, sound, 16000)._asdict().items():
            np.testing.assert_allclose(row[name], vector, atol=1e-4)


def cuts(run):
    from xkd.encoders.columns import window_of

    configs = [folder.load(run / "encoders" / f"{modality}_student")[1] for modality in MODALITIES]
    return {config.modality: window_of(config) for config in configs}


def test_sound_that_begins_late_stays_beside_its_frames(run, tmp_path, read):
    path, windows_of = write_late(tmp_path / "late.mkv", seconds=3.0, late=0.7), cuts(run)
    cutting = windows.Cutting(tuple(windows_of.values()), 0.5)
    surveys, faults = reading.surveyed([str(path)], cutting)
    clips = list(reading.clips_of(surveys, cutting, faults))
    assert len(clips) > 3
    for clip in clips:
        shown = read_moment(str(path), windows_of, 0.5 * clip.number)
        for modality, window in windows_of.items():
            np.testing.assert_array_equal(clip.values[window], shown.clips[modality])
    assert not clips[0].values[windows_of["audio"]][:10000].any()


def write_late(path, seconds, late):
    """Frames, and a tone that begins after them."""
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("pcm_s16le", rate=16000)
        video.width, video.height, audio.layout = *SIZE, "mono"
        for number in range(round(seconds * 25)):
            picture = np.full((SIZE[1], SIZE[0], 3), 3 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        container.mux(video.encode(None))
        tone = (9999 * np.sin(np.arange(round(seconds * 16000)) / 5)).astype(np.int16)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 16000, round(late * 16000), Fraction(1, 16000)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def other_encoder(run, out, **fed):
    """A copy of the video encoder that takes other frames."""
    network, config = folder.load(run / "encoders" / "video_student")
    folder.save(network, config.model_copy(update={"input": config.input.model_copy(update=fed)}), out)
    return out


def test_several_encoders_share_what_is_decoded(run, media, embedded, read, tmp_path):
    video, small = run / "encoders" / "video_student", other_encoder(run, tmp_path / "small", short_side=40)
    alone = {path.name: embedded(path, media, stride=0.5) for path in (video, small)}
    once = len(read) // 2
    table = embedded(video, media, stride=0.5, also=(small,))
    assert len(read) == 3 * once
    assert list(table.columns) == ["file", "start", "end", "video_student", "small"]
    for name, expected in alone.items():
        both = table.merge(expected, on=["file", "start"])
        assert len(both) == len(table)
        np.testing.assert_allclose(np.stack(both[name]), np.stack(both["vector"]), atol=1e-5)


def test_tokens_are_those_whose_mean_the_vectors_are(run, media, embedded, tmp_path):
    encoder = run / "encoders" / "video_student"
    vectors = np.stack(embedded(encoder, media)["vector"])
    embedded(encoder, media, tokens=True, name="tokens.parquet")
    tokens = pq.read_table(tmp_path / "tokens.parquet")["vector"].combine_chunks().to_numpy_ndarray()
    assert tokens.shape == (len(vectors), 4 * 4 * 4, 24)
    np.testing.assert_allclose(tokens.mean(1), vectors, atol=1e-5)
    direct = load_encoder(encoder).tokens(frames_of(media / "a.mp4")[:8])[0, 1:]
    np.testing.assert_allclose(tokens[0], direct, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 512])
def test_means_of_files_and_half_precision(run, media, embedded, monkeypatch, rows):
    monkeypatch.setattr(embed, "PART_ROWS", rows)
    encoder = run / "encoders" / "audio_student"
    clips = embedded(encoder, media)
    means = embedded(encoder, media, per_file=True)
    halves = embedded(encoder, media, half=True)
    assert means["file"].tolist() == ["a.mp4", "b.mp4", "c.mp4"]
    assert means["start"].tolist() == [0, 0, 0]
    for _, row in means.iterrows():
        of_file = clips[clips["file"] == row["file"]]
        np.testing.assert_allclose(row["vector"], np.stack(of_file["vector"]).mean(0), atol=1e-6)
        assert row["end"] == of_file["end"].max()
    assert halves["vector"][0].dtype == np.float16
    np.testing.assert_array_equal(np.stack(halves["vector"]), np.stack(clips["vector"]).astype(np.float16))
    half_means = embedded(encoder, media, per_file=True, half=True)
    np.testing.assert_array_equal(np.stack(half_means["vector"]), np.stack(means["vector"]).astype(np.float16))


def test_video_is_read_at_another_rate_and_seen_whole(run, tmp_path, embedded):
    encoder, path = run / "encoders" / "video_student", write_media(tmp_path / "wide.mp4", seconds=3, size=(96, 40))
    model, frames = load_encoder(encoder), frames_of(path, 4)
    table = embedded(encoder, path, fps=4)
    assert table["start"].tolist() == [0, 2]
    np.testing.assert_allclose(table["vector"][0], model(frames[:8]), atol=1e-5)
    seen = torch.from_numpy(frames[:8]).permute(0, 3, 1, 2)
    squeezed = functional.resize(seen, [32, 32], antialias=True)
    normal = functional.normalize(squeezed / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    whole = embedded(encoder, path, fps=4, crop="whole")
    np.testing.assert_allclose(whole["vector"][0], model.encoder.features(normal.transpose(0, 1)[None])[0], atol=1e-5)


def test_options_that_ask_for_nothing_are_refused(run, media, embedded, tmp_path):
    audio = run / "encoders" / "audio_student"
    with pytest.raises(UserError, match="no encoder here is one of video"):
        embedded(audio, media, fps=4)
    with pytest.raises(UserError, match="--per-file averages"):
        embedded(audio, media, per_file=True, tokens=True)
    with pytest.raises(UserError, match="no encoder of a teacher"):
        embedded(run, media, owner="teacher")
    shutil.copytree(audio, tmp_path / "audio_student")
    with pytest.raises(UserError, match="column 'audio_student' is there already"):
        embedded(audio, media, also=(tmp_path / "audio_student",))


def test_a_call_that_was_killed_continues_and_gives_the_same_file(run, media, read, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "PART_ROWS", 8)
    monkeypatch.setattr(tracks.VideoTrack, "seconds_at_once", 1.0)
    whole, output, moves, move = tmp_path / "whole.parquet", tmp_path / "out.parquet", [], os.replace

    def call(path, kill_at=None, before=False):
        def replace(*names):
            moves.append(names)
            if before and len(moves) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            move(*names)
            if len(moves) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "replace", replace)
        moves.clear()
        read.clear()
        embed.run(run, (media,), path, 4, stride=0.25, force=True)
        return list(read)

    every = call(whole)
    steps = list(product(range(1, len(moves) + 1), (True, False)))
    assert len(steps) > 6
    decoded = []
    for step in steps:
        assert code_of(fork(partial(call, output, *step), tmp_path / "log.txt")) == -signal.SIGKILL
        decoded.append(call(output))
        assert output.read_bytes() == whole.read_bytes(), step
        assert not folder_of(output).exists()
        output.unlink()
    assert decoded[0] == every
    assert [len(files) for files in decoded] == sorted(map(len, decoded), reverse=True)
    assert decoded[-1] == []
    middle = decoded[len(steps) // 2]
    assert 0 < len(middle) < len(every)
    assert "a.mp4" not in middle


def interrupted(run, media, output, monkeypatch, **options):
    """Begins a table, and ends when all its parts are there."""

    def ended(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embed, "PART_ROWS", 1)
        patch.setattr(embed.tables, "write", ended)
        with pytest.raises(KeyboardInterrupt):
            embed.run(run / "encoders" / "audio_student", (media,), output, 4, **options)


def test_only_the_same_call_continues(run, media, embedded, tmp_path, monkeypatch):
    output, own, audio = tmp_path / "out.parquet", tmp_path / "own", run / "encoders" / "audio_student"
    shutil.copytree(media, own)
    interrupted(run, own, output, monkeypatch)
    for changed, options in (
        ("options", {"stride": 0.5}),
        ("encoders", {"also": (run / "encoders" / "video_student",)}),
    ):
        with pytest.raises(UserError, match=f"out.parquet: a call with other {changed} did not finish it"):
            embed.run(audio, (own,), output, 4, **options)
    write_media(own / "b.mp4", seconds=1.5, size=SIZE)
    with pytest.raises(UserError, match="other files did not finish"):
        embed.run(audio, (own,), output, 4)
    assert not output.exists()
    anew = embedded(audio, own, stride=0.5)
    pd.testing.assert_frame_equal(anew, embedded(audio, own, stride=0.5, name="clean.parquet"))


def test_a_file_that_failed_before_the_kill_stays_out(run, media, read, tmp_path, monkeypatch, capsys):
    """What the first call learnt of a file is not lost, though its first clips were computed."""
    monkeypatch.setattr(tracks.AudioTrack, "seconds_at_once", 1.0)
    cut = windows.read_clips

    def read_clips(path, stream, begins):
        return "unreadable: damaged" if path.endswith("a.mp4") and begins[0] > 20000 else cut(path, stream, begins)

    monkeypatch.setattr(windows, "read_clips", read_clips)
    interrupted(run, media, tmp_path / "out.parquet", monkeypatch)
    monkeypatch.setattr(windows, "read_clips", cut)
    embed.run(run / "encoders" / "audio_student", (media,), tmp_path / "out.parquet", 4)
    assert {file[-5:] for file in pd.read_parquet(tmp_path / "out.parquet")["file"]} == {"b.mp4", "c.mp4"}
    assert "a.mp4: unreadable: damaged" in capsys.readouterr().err


def test_two_calls_do_not_write_one_file(run, media, read, tmp_path):
    output = tmp_path / "out.parquet"
    folder_of(output).mkdir()
    with (
        locked(folder_of(output) / "lock"),
        pytest.raises(UserError, match="out.parquet: another process is writing it"),
    ):
        embed.run(run / "encoders" / "audio_student", (media,), output, 4)
    assert not output.exists()
