"""Odd media files: `prepare`, `embed` and `show` use each or give a reason, and read no other file for it."""

import errno
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from media_files import write_media

import xkd
from xkd.data import manifest, transcode, windows
from xkd.data.opening import MediaError, faults_of, open_decord
from xkd.data.transcode import prepare_clip
from xkd.data.windows import Cutting, Window
from xkd.made import Made
from xkd.settings import Clips, Dataset, Limits
from xkd.show.moment import read_moment
from xkd.stages import prepare

CLIPS = Clips(seconds=1, fps=8, size=32, sample_rate=16000)
CUTS = {"video": Window("video", 8, 8), "audio": Window("audio", 16000, 16000)}
PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\nsibling.ts\n#EXT-X-ENDLIST\n"


class Settings:
    """As much of Params as the stage reads."""

    dataset = "own"

    def __init__(self, **limits):
        self.datasets, self.clips = {"own": Dataset(kind="manifest", require="any")}, CLIPS
        self.limits = Limits(**limits)


def write_frames(path: Path, times, size=(64, 48), sound_at: float | None = None) -> Path:
    """Frames at the times given in 1 / 25 s, and a second of sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        (video.width, video.height), video.pix_fmt, video.codec_context.time_base = size, "yuv420p", Fraction(1, 25)
        sound = container.add_stream("aac", rate=16000, layout="mono") if sound_at is not None else None
        packets = []
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(sound_at * 16000), Fraction(1, 16000)
            packets += [*sound.encode(frame), *sound.encode(None)]
        for packet in packets:
            container.mux(packet)
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1) -> Path:
    kind, width = (3, 4) if samples.dtype == np.float32 else (1, samples.itemsize)
    heads = struct.pack("<IHHIIHH", 16, kind, channels, rate, rate * channels * width, channels * width, 8 * width)
    data = samples.tobytes()
    content = b"WAVEfmt " + heads + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    return path


def prepared(folder: Path, **limits) -> dict[str, str]:
    """The reason of each file of a folder after `prepare`, empty for a usable one."""
    rows = [f'"{path.name}","{path.name}"' for path in sorted(folder.iterdir()) if path.suffix not in ("", ".csv")]
    (folder / "index.csv").write_text("\n".join(["id,path", *rows, "endless," + "x" * 300 + ".mp4"]) + "\n")
    prepare.run(Settings(**limits), folder / "index.csv", folder / "out")
    return manifest.read_manifest(folder / "out" / "manifest.csv").all_rows.set_index("id")["reason"].to_dict()


def seen_by_all(path: Path) -> list[str]:
    """What prepare, embed and show say about a file that they must not use."""
    facts = prepare_clip(
        str(path), str(path.absolute().parent / "clip"), Made(path.absolute().parent, "prepare"), CLIPS, "any", False
    ).facts
    assert facts["status"] == "unusable"
    said = [facts["reason"], read_moment(str(path), CUTS, None)]
    for cut in CUTS.values():
        said += [windows.survey(str(path), Cutting((cut,))), windows.read_clips(str(path), (cut,), [0])]
    assert all(isinstance(one, str) and one for one in said), said
    return said


def test_odd_files_have_their_reasons_and_the_rest_is_finished(tmp_path):
    tone = np.sin(np.arange(16000, dtype=np.float32))
    write_media(tmp_path / "good.mp4")
    write_wav(tmp_path / "eight.wav", np.repeat((tone * 9999).astype(np.int16), 8), channels=8)
    write_wav(tmp_path / "nan.wav", np.where(np.arange(16000) == 100, np.float32("nan"), tone))
    write_wav(tmp_path / "infinite.wav", np.where(np.arange(16000) == 15999, np.float32("inf"), tone))
    write_wav(tmp_path / "slow.wav", np.zeros(100, np.int16), rate=1)
    write_wav(tmp_path / "fast.wav", np.zeros(100, np.int16), rate=2 * 10**9)
    write_wav(tmp_path / "nothing.wav", np.zeros(0, np.int16))
    write_frames(tmp_path / "thin.mp4", range(3), size=(4, 4000))
    write_frames(tmp_path / "apart.mp4", [0, 25000, 50000])
    write_frames(tmp_path / "gap.mp4", [*range(50), *range(75000, 75050)])
    write_frames(tmp_path / "late.mkv", range(25), sound_at=1e6)
    write_frames(tmp_path / "behind.mkv", range(25), sound_at=30)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "empty.mp4").touch()
    reasons = prepared(tmp_path)
    assert {name for name, reason in reasons.items() if not reason} == {"good.mp4", "eight.wav"}
    kinds = {name: reason.split(": ")[0] for name, reason in reasons.items()}
    limited = {"slow.wav", "fast.wav", "thin.mp4", "apart.mp4", "gap.mp4", "late.mkv"}
    assert {name for name, kind in kinds.items() if kind == "out of limits"} == limited
    assert kinds["behind.mkv"] == "apart"
    for name in ("nan.wav", "infinite.wav"):
        assert reasons[name] == "unreadable: the sound holds NaN or infinity"
    for name in ("pipe.mp4", "folder.mp4", "zero.mp4"):
        assert reasons[name] == "unreadable: not a regular file"


def test_limits_are_those_of_the_settings(tmp_path):
    write_media(tmp_path / "long.mp4", seconds=2)
    write_media(tmp_path / "sound.wav", codec=None, seconds=2)
    write_media(tmp_path / "short.mp4", seconds=0.5)
    write_media(tmp_path / "large.mp4", seconds=0.5, size=(128, 96))
    write_frames(tmp_path / "late.mkv", range(10), sound_at=0.3)
    assert not prepared(tmp_path)["long.mp4"]  # and a clip that was made is held to later limits, too
    reasons = prepared(tmp_path, seconds=1, side=100, apart=0.1)
    for name, key in (("long", "seconds"), ("sound", "seconds"), ("large", "side"), ("late", "apart")):
        assert next(text for file, text in reasons.items() if file.startswith(name)).endswith(f"(limits.{key})")
    assert reasons["short.mp4"] == ""
    assert "limits.fps" in prepared(tmp_path, fps=(30, 60))["large.mp4"]
    with pytest.raises(ValueError, match="the lower bound comes first"):
        Limits(fps=(60, 30))


@pytest.mark.parametrize(
    "fault",
    [MemoryError(), RuntimeError("two\nlines"), ZeroDivisionError(), IndexError(), RecursionError("deep")],
    ids=repr,
)
def test_whatever_goes_wrong_with_a_file_is_its_reason(tmp_path, monkeypatch, fault):
    def fails(*_, **__):
        raise fault

    path = write_media(tmp_path / "a.mp4")
    monkeypatch.setattr(av, "open", fails)
    for reason in seen_by_all(path):
        assert ("limits.memory_gb" if isinstance(fault, MemoryError) else type(fault).__name__) in reason
        assert "\n" not in reason


def test_faults_of_the_machine_are_no_reasons_of_files(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4")
    for code, name, passes in (
        (errno.ENOSPC, None, True),
        (errno.EROFS, str(tmp_path / "out"), True),
        (errno.EMFILE, str(path), True),
        (errno.EIO, str(path), False),
    ):

        def fails(*_, code=code, name=name):
            raise OSError(code, os.strerror(code), name)

        monkeypatch.setattr(transcode, "_write", fails)
        arguments = (str(path), str(tmp_path / "a"), Made(tmp_path, "prepare"), CLIPS, "any", False)
        if passes:
            with pytest.raises(OSError, match=os.strerror(code)):
                prepare_clip(*arguments)
        else:
            assert prepare_clip(*arguments).facts["reason"] == "unreadable: Input/output error"


def test_a_file_takes_no_more_memory_than_allowed(tmp_path):
    reason = r"out of memory: needs more than 0.2 GB \(limits.memory_gb\)"
    with pytest.raises(MediaError, match=reason), faults_of(tmp_path / "a.mp4", 0.2):
        np.empty(10**8)
    assert np.empty(10**8).size  # the limit is gone


def test_the_cover_of_an_album_is_no_video(tmp_path):
    path = tmp_path / "cover.mp3"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("libmp3lame", rate=16000), container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        packets = [*sound.encode(frame), *sound.encode(None)]
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24").reformat(
            format="yuvj420p"
        )
        picture.pts = 0
        for packet in [*cover.encode(picture), *cover.encode(None), *packets]:
            container.mux(packet)
    facts = prepare_clip(str(path), str(tmp_path / "out"), Made(tmp_path, "prepare"), CLIPS, "any", False).facts
    assert not facts["has_video"]
    assert facts["seconds"] > 1.9
    assert (
        prepare_clip(str(path), str(tmp_path / "b"), Made(tmp_path, "prepare"), CLIPS, "both", False).facts["reason"]
        == "no video"
    )
    assert windows.survey(str(path), Cutting((CUTS["video"],))) == "no video"


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ts", "a.mkv", "a.mp3", "a%03d.jpg", "concat:sibling.mp4"])
def test_no_file_makes_the_decoders_read_another_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "sibling.mp4")
    segment = write_media(tmp_path / "sibling.ts", fps=25, codec="mpeg2video", audio=False).read_bytes()
    playlist = PLAYLIST.encode()
    empty_tag = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
    dash = (
        b'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet>'
        b'<Representation id="1" mimeType="video/mp4"><BaseURL>sibling.mp4</BaseURL></Representation></AdaptationSet>'
        b"</Period></MPD>"
    )
    scripts = [
        b"ffconcat version 1.0\nfile sibling.mp4\n",
        playlist,
        playlist + b"\n#" + segment,  # FFmpeg 8 takes it for the segment, the older one in decord for the playlist
        empty_tag + playlist + b"\n#" + segment,
        b"\xef\xbb\xbf" + playlist,
        dash,
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b";FFMETADATA1\ntitle=sibling.mp4\n",
        b"1\n00:00:00,000 --> 00:00:01,000\nsibling.mp4\n",
    ]
    for script in scripts:
        (tmp_path / name).write_bytes(script)
        assert {reason.split(":")[0] for reason in seen_by_all(Path(name))} <= {"unreadable", "no audio", "no video"}
        with pytest.raises(MediaError):
            open_decord(Path(name))


def test_media_files_are_opened_in_one_place():
    folder = Path(xkd.__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        if path.relative_to(folder) != Path("data/opening.py"):
            assert "VideoReader(" not in text, path
            assert "AudioReader(" not in text, path
            assert text.count("av.open(") == text.count('av.open(str(temporary), "w"'), path
