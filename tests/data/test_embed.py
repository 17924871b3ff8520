"""Encoders on files and on raw clips."""

import numpy as np
import pandas as pd
import pytest
import torch
from media_files import damage, truncate, write_media

from xkd import load_encoder
from xkd.data import windows
from xkd.data.decode import Video, read_audio
from xkd.data.workers import Failure
from xkd.encoders import folder, reading
from xkd.encoders.config import AudioInput, EncoderConfig, VideoInput
from xkd.errors import UserError
from xkd.settings import LogMel
from xkd.stages import embed

SIZES = {"owner": "student", "width": 24, "depth": 2, "heads": 2, "origin": "a test", "licence": "MIT"}
VIDEO = VideoInput(frames=8, fps=8, short_side=36, size=32)
SIZE = (54, 36)  # of frames that the encoder need not scale
SOUND = AudioInput(frames=96, sample_rate=16000, logmel=LogMel(n_fft=512, hop=160, n_mels=40))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    for modality, patch, grid, fed in (("video", (2, 8, 8), (4, 4, 4), VIDEO), ("audio", (8, 8), (5, 12), SOUND)):
        config = EncoderConfig(modality=modality, patch=patch, grid=grid, input=fed, **SIZES)
        folder.save(folder.build(config), config, root / modality)
    return root


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    write_media(root / "a.mp4", seconds=2.4, size=SIZE)
    (root / "deep").mkdir()
    write_media(root / "deep" / "b.mp4", seconds=0.6, size=SIZE)
    return root


def embedded(encoder, *sources, output, batch_size=16):
    embed.run(encoder, sources, output, batch_size, force=True)
    table = pd.read_parquet(output)
    return table.assign(file=[name.rsplit("/", 1)[-1] for name in table["file"]])


def test_a_folder_becomes_one_row_per_clip(encoders, media, tmp_path):
    table = embedded(encoders / "video", media, output=tmp_path / "out.parquet")
    assert table["file"].tolist() == ["a.mp4", "a.mp4", "b.mp4"]
    assert table["start"].tolist() == [0.0, 1.0, 0.0]
    assert table["end"].tolist() == pytest.approx([1.0, 2.0, 0.6], abs=0.13)
    assert all(len(vector) == 24 for vector in table["vector"])


def test_vectors_are_those_of_the_encoder_called_directly(encoders, media, tmp_path):
    model = load_encoder(encoders / "video")
    video = Video(media / "a.mp4")
    frames = video.frames(video.at_rate(8))
    table = embedded(encoders / "video", media / "a.mp4", output=tmp_path / "v.parquet", batch_size=1)
    for row, first in zip(table["vector"], (0, 8), strict=True):
        np.testing.assert_allclose(row, model(frames[first : first + 8]).numpy(), atol=1e-5)
    model = load_encoder(encoders / "audio")
    samples = read_audio(media / "a.mp4", 16000)
    table = embedded(encoders / "audio", media / "a.mp4", output=tmp_path / "a.parquet")
    assert len(table) == 3  # 2.4 s of sound in clips of 0.96 s
    np.testing.assert_allclose(table["vector"][0], model(samples[:15360], 16000).numpy(), atol=1e-5)


def test_batch_size_changes_nothing(encoders, media, tmp_path):
    one, many = (
        np.stack(embedded(encoders / "video", media, output=tmp_path / "out.parquet", batch_size=size)["vector"])
        for size in (1, 16)
    )
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_files_of_a_csv(encoders, media, tmp_path):
    listing = media / "list.csv"
    pd.DataFrame({"path": ["deep/b.mp4"], "label": ["x"]}).to_csv(listing, index=False)
    table = embedded(encoders / "audio", listing, output=tmp_path / "out.parquet")
    listing.unlink()
    assert table["file"].tolist() == ["b.mp4"]


def test_a_long_file_is_read_in_parts_and_loses_nothing(encoders, media, tmp_path, monkeypatch):
    whole = {m: embedded(encoders / m, media, output=tmp_path / f"{m}.parquet") for m in ("video", "audio")}
    for track in windows.TRACKS.values():
        monkeypatch.setattr(track, "seconds_at_once", 0.1)
    for modality, expected in whole.items():
        parts = embedded(encoders / modality, media, output=tmp_path / "parts.parquet", batch_size=2)
        pd.testing.assert_frame_equal(parts.drop(columns="vector"), expected.drop(columns="vector"))
        np.testing.assert_allclose(np.stack(parts["vector"]), np.stack(expected["vector"]), atol=1e-5)


def test_a_file_that_fails_on_the_way_gets_no_rows(encoders, media, tmp_path, monkeypatch, capsys):
    longer = tmp_path / "c.mp4"
    write_media(longer, seconds=2.4)
    monkeypatch.setattr(windows.TRACKS["audio"], "seconds_at_once", 1.0)
    monkeypatch.setattr(reading, "run_guarded", _second_part_fails(longer))
    table = embedded(encoders / "audio", longer, media, output=tmp_path / "out.parquet", batch_size=2)
    assert table["file"].tolist() == ["a.mp4"] * 3 + ["b.mp4"]
    assert "c.mp4: decoder crashed" in capsys.readouterr().err


def _second_part_fails(path):
    def in_this_process(function, tasks, *_, **__):
        for task in tasks:
            failing = function is windows.read_clips and task[0] == str(path) and task[2] == [15360]
            yield Failure("decoder crashed") if failing else function(*task)

    return in_this_process


def test_a_source_that_is_no_table_is_refused_in_one_line(encoders, tmp_path):
    for content, message in (('a,b\n"', "not a readable CSV"), ("a,b\n1,2\n", "no column 'path'")):
        (tmp_path / "list.csv").write_text(content)
        with pytest.raises(UserError, match=message):
            embed.run(encoders / "audio", (tmp_path / "list.csv",), tmp_path / "out.parquet", 4)


def test_damaged_files_are_named_and_the_rest_is_finished(encoders, tmp_path, capsys):
    write_media(tmp_path / "good.mp4")
    write_media(tmp_path / "silent.mp4", audio=False)
    truncate(write_media(tmp_path / "cut.mp4"), 0.5)
    damage(write_media(tmp_path / "damaged.mp4"))
    (tmp_path / "notes.txt").write_text("no media")
    table = embedded(encoders / "audio", tmp_path, output=tmp_path.parent / "out.parquet")
    assert "good.mp4" in set(table["file"])
    said = capsys.readouterr().err
    assert "silent.mp4: no audio" in said
    assert "cut.mp4: unreadable" in said
    assert "notes.txt: unreadable" in said
    left_out = {line.split(": ")[2].rsplit("/", 1)[-1] for line in said.splitlines() if line.startswith("xkd: left")}
    assert left_out | set(table["file"]) == {"good.mp4", "silent.mp4", "cut.mp4", "damaged.mp4", "notes.txt"}
    assert f"{len(left_out)} files left out" in said


def test_nothing_readable_leaves_an_earlier_output(encoders, media, tmp_path):
    output = tmp_path / "out.parquet"
    before = embedded(encoders / "video", media, output=output)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no clip could be read"):
        embed.run(encoders / "video", (broken,), output, 4, force=True)
    with pytest.raises(UserError, match="no such file"):
        embed.run(encoders / "video", (tmp_path / "absent",), output, 4)
    assert len(pd.read_parquet(output)) == len(before)


def test_frames_of_any_size_and_length(encoders):
    model = load_encoder(encoders / "video")
    frames = np.random.default_rng(0).integers(0, 256, (11, 50, 70, 3), dtype=np.uint8)
    assert model(frames).shape == (24,)
    torch.testing.assert_close(model(frames), model(frames[:10]))  # a patch lasts two frames
    torch.testing.assert_close(model(np.stack([frames, frames]))[1], model(frames))
    with pytest.raises(UserError, match="fewer than one patch of 2"):
        model(frames[:1])
    with pytest.raises(UserError, match="uint8 frames"):
        model(frames / 255)


def test_audio_of_any_rate(encoders):
    model = load_encoder(encoders / "audio")
    tone = {rate: 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) for rate in (16000, 44100)}
    same = torch.cosine_similarity(model(tone[16000], 16000), model(tone[44100], 44100), dim=0)
    other = torch.cosine_similarity(model(tone[16000], 16000), model(tone[16000][::2].copy(), 16000), dim=0)
    assert same > 0.99
    assert same > other
    for wrong, message in (((tone[16000],), "needs the sample rate"), ((tone[16000][:100], 16000), "too short")):
        with pytest.raises(UserError, match=message):
            model(*wrong)
    with pytest.raises(UserError, match="as floats"):
        model((tone[16000] * 32767).astype(np.int16), 16000)


def overflowing(encoder, out):
    """A copy of an encoder whose weights are finite and whose features are not."""
    network, config = folder.load(encoder)
    with torch.no_grad():
        network.norm.weight.fill_(3e38)
        network.norm.bias.fill_(3e38)
    folder.save(network, config, out)
    return out


def test_clips_without_finite_features_are_listed_and_get_no_rows(encoders, tmp_path, capsys, monkeypatch):
    (tmp_path / "media").mkdir()
    for name in ("a", "b"):
        write_media(tmp_path / "media" / f"{name}.mp4", seconds=3)
    read = windows.read_clips

    def with_an_odd_clip(file, stream, begins):
        cut = read(file, stream, begins)
        if "b.mp4" in file:
            cut.values[()][begins[1] : begins[2]] = np.nan
        return cut

    monkeypatch.setattr(reading, "run_guarded", lambda function, tasks, *_, **__: [
        with_an_odd_clip(*task) if function is read else function(*task) for task in tasks
    ])  # fmt: skip
    table = embedded(encoders / "audio", tmp_path / "media", output=tmp_path / "out.parquet")
    whole = table[table["file"] == "a.mp4"]
    left = table[table["file"] == "b.mp4"]
    assert left["start"].tolist() == whole["start"].drop(1).tolist()
    assert np.isfinite(np.stack(table["vector"])).all()
    told = capsys.readouterr().err
    assert f"b.mp4: 1 of {len(whole)} clips (0.96 to 1.92 s): features that are not finite" in told
    assert "0 files left out, and clips of 1" in told


def test_an_encoder_that_overflows_is_no_silent_vector(encoders, media, tmp_path):
    odd = overflowing(encoders / "audio", tmp_path / "odd")
    with pytest.raises(UserError, match="no clip could be read from 2 files .*a.mp4: 3 of 3 clips .*not finite"):
        embed.run(odd, (media,), tmp_path / "out.parquet", 16)
    assert not (tmp_path / "out.parquet").exists()
    with pytest.raises(UserError, match="audio encoder makes features that are not finite of clip 0 of 1"):
        load_encoder(odd)(np.zeros(16000, np.float32), 16000)


def test_samples_that_are_not_finite_are_no_silent_vector(encoders):
    batch = np.zeros((3, 16000), np.float32)
    batch[1, 7] = np.nan
    with pytest.raises(UserError, match="not finite of clip 1 of 3"):
        load_encoder(encoders / "audio")(batch, 16000)
