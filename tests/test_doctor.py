"""`xkd doctor`: planted faults are found, and nothing else; clean sets raise no alarm."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xkd import cli, params
from xkd.data import encode, manifest, measure
from xkd.data.clips import open_clips
from xkd.encoders.config import AudioInput, EncoderConfig, VideoInput
from xkd.errors import UserError
from xkd.files import write_json
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.settings import Clips, Dataset, Limits, LogMel
from xkd.stages import doctor, prepare

MINIATURE = Path(__file__).parents[1] / "workflow" / "presets" / "miniature.yaml"
RATE, FPS = 16000, 8
MEL = LogMel(n_fft=512, hop=160, n_mels=40)
NAMES = [f"{split}/{label}/{n}.mov" for split in ("train", "test") for label in ("cat", "dog") for n in (0, 1)]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(doctor, "run_guarded", lambda function, tasks, *_: (function(*task) for task in tasks))


def clean(seed):
    """Returns frames, samples, frame and sample rate of eight clips: moving, reddish, with noise."""
    random, clips = np.random.default_rng(seed), {}
    for name in NAMES:
        scene = np.kron(random.integers(0, 180, (4, 4, 3)), np.ones((8, 8, 1))) + np.array([40, 20, 0])
        frames = np.stack([np.roll(scene, 3 * number, axis=1) for number in range(FPS)]).astype(np.uint8)
        sound = random.standard_normal(RATE) * random.uniform(0.07, 0.13)
        clips[name] = [frames, np.clip(sound, -1, 1), FPS, RATE]
    return clips


def write(folder, clips):
    for name, (frames, sound, fps, rate) in clips.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".mov":
            encode.write_raw(path, frames, fps, np.rint(sound * 32767).astype(np.int16), rate)
        else:
            encode.write_clip(path, frames, fps, frames.shape[2:0:-1], sound.astype(np.float32), rate)
    return folder


def one_pass(waveforms, mel, rate):
    """Mean and standard deviation of all log-mels at once, in float64."""
    power = LogMelSpectrogram(mel, rate).double().power
    values = torch.cat([torch.log(power(torch.as_tensor(w).double()) + mel.floor).flatten() for w in waveforms])
    return {"mean": values.mean().item(), "std": values.std(correction=0).item()}


@pytest.fixture(scope="module")
def settings():
    """As much of Params as the stage reads; the statistics are those of other clean clips."""
    mel = MEL.model_copy(update=one_pass([clip[1] for clip in clean(99).values()], MEL, RATE))
    return SimpleNamespace(datasets={}, clips=Clips(seconds=1, fps=FPS, size=32, sample_rate=RATE), logmel=mel)


def examined(folder, out, settings=None, encoder=None):
    count = doctor.run(str(folder), settings, encoder, out, force=True)
    told = json.loads(out.read_text())
    assert count == len(told["findings"])
    return {finding["kind"]: finding for finding in told["findings"]}


def few_frames(clips):
    for name in NAMES[:3]:
        clips[name][0], clips[name][2] = clips[name][0][:3], 3
    return NAMES[:3]


def low_rate(clips):
    clips[NAMES[4]][1], clips[NAMES[4]][3] = clips[NAMES[4]][1][::2], RATE // 2
    return NAMES[4:5]


def quiet(clips):
    for clip in clips.values():
        clip[1] = clip[1] * 0.05
    return NAMES


def silent(clips):
    for name in NAMES[2:4]:
        clips[name][1] = clips[name][1] * 0.0005
    return NAMES[2:4]


def mirrored(clips):
    """A clip for testing is one for training, mirrored, of which a lossy file was made."""
    clips["test/cat/0.mp4"] = [clips[NAMES[3]][0][:, :, ::-1], *clips.pop("test/cat/0.mov")[1:]]
    return ["test/cat/0.mp4"]


def same_sound(clips):
    clips[NAMES[5]][1] = clips[NAMES[0]][1]
    return NAMES[5:6]


def twice(clips):
    clips["train/dog/7.mov"] = clips[NAMES[3]]
    return [NAMES[3], "train/dog/7.mov"]


def constant(clips):
    frames = clips[NAMES[1]][0]
    frames[:] = frames[:1]
    return NAMES[1:2]


def slow(clips):
    """Sound of 44.1 kHz whose header says 16 kHz."""
    clips[NAMES[6]][1] = np.random.default_rng(5).standard_normal(44100) * 0.1
    return NAMES[6:7]


def clipped(clips):
    for start in range(0, RATE, 1000):
        clips[NAMES[7]][1][start : start + 10] = 1.0
    return NAMES[7:]


def reversed_channels(clips):
    for clip in clips.values():
        clip[0] = clip[0][..., ::-1].copy()
    return NAMES


def one_class(clips):
    for name in [name for name in clips if "cat" in name]:
        clips[name.replace("cat", "dog").replace("/0", "/2").replace("/1", "/3")] = clips.pop(name)
    return sorted(clips)


PLANTED = {
    "video rate": few_frames,
    "audio rate": low_rate,
    "statistics": quiet,
    "silent": silent,
    "leak": mirrored,
    "duplicate": twice,
    "constant": constant,
    "lengths apart": slow,
    "clipped": clipped,
    "colours": reversed_channels,
    "one class": one_class,
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_the_one_that_is_found(kind, tmp_path, settings, capsys):
    clips = clean(3)
    faulty = PLANTED[kind](clips)
    found = examined(write(tmp_path / "set", clips), tmp_path / "out.json", settings)
    assert list(found) == [kind]
    if kind != "colours":  # single clips may be less blue
        assert sorted(found[kind]["clips"]) == sorted(faulty)
    shown = capsys.readouterr().out
    assert found[kind]["text"] in shown
    assert f"1 finding: {kind}" in shown
    if kind == "lengths apart":
        assert "as 44.1 kHz read as 16 kHz" in shown


def test_sound_of_another_split_is_a_leak(tmp_path, settings):
    clips = clean(3)
    faulty = same_sound(clips)
    found = examined(write(tmp_path / "set", clips), tmp_path / "out.json", settings)
    assert found["leak"]["clips"] == faulty


@pytest.mark.parametrize("seed", range(10))
def test_clean_sets_raise_no_alarm(seed, tmp_path, settings, capsys):
    assert examined(write(tmp_path / "set", clean(seed)), tmp_path / "out.json", settings) == {}
    assert capsys.readouterr().out.endswith("Nothing found.\n")


@pytest.fixture(scope="module")
def clean_set(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clean"), clean(3))


def test_statistics_are_those_of_one_pass_in_float64(clean_set, tmp_path, settings, monkeypatch, capsys):
    waveforms = [np.rint(clip[1] * 32767).astype(np.int16) / np.float64(32768) for clip in clean(3).values()]
    expected = one_pass(waveforms, MEL, RATE)
    examined(clean_set, tmp_path / "out.json", settings)
    assert json.loads((tmp_path / "out.json").read_text())["logmel"] == pytest.approx(expected, abs=1e-6)
    assert f"logmel:\n  mean: {expected['mean']:.7g}\n  std: {expected['std']:.7g}\n" in capsys.readouterr().out


def test_sound_is_read_in_blocks_that_lose_no_sample(settings, monkeypatch):
    monkeypatch.setattr(measure, "BLOCK_SECONDS", 0.01)
    sound = clean(0)[NAMES[0]][1].astype(np.float32)
    sound[400:404] = 1
    pieces = [sound[:300], sound[300:301], sound[301:]]
    blocks = list(measure._blocks(pieces, RATE))
    assert [len(block) for block in blocks] == [300, RATE - 300]
    np.testing.assert_array_equal(np.concatenate(blocks), sound)
    found = measure.sound_of(lambda rate: pieces, RATE, None)
    assert (found.peak, found.clipped, found.seconds) == (1.0, 4 / RATE, 1.0)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory, settings):
    """The parts of encoders' folders that say what they expect."""
    root = tmp_path_factory.mktemp("encoders")
    fed = {
        "video": VideoInput(frames=8, fps=16, short_side=64, size=64),
        "audio": AudioInput(frames=96, sample_rate=RATE, logmel=settings.logmel),
    }
    patches = {"video": ((2, 8, 8), (4, 8, 8)), "audio": ((1, 8), (settings.logmel.n_mels, 12))}
    for modality, put in fed.items():
        patch, grid = patches[modality]
        about = {"owner": "student", "width": 24, "depth": 2, "heads": 2, "origin": "a test", "licence": "MIT"}
        config = EncoderConfig(modality=modality, patch=patch, grid=grid, input=put, **about)
        (root / modality).mkdir()
        write_json(root / modality / "config.json", config.model_dump(mode="json"))
    return root


def test_an_encoder_is_what_clips_are_compared_with(clean_set, encoders, tmp_path):
    found = examined(clean_set, tmp_path / "out.json", encoder=encoders / "video")
    assert {kind: len(one["clips"]) for kind, one in found.items()} == {"video rate": 8, "small": 8}
    assert "8 frames per second, the encoder 16" in found["video rate"]["text"]
    assert examined(clean_set, tmp_path / "out.json", encoder=encoders / "audio") == {}
    clips = clean(3)
    quiet(clips)
    found = examined(write(tmp_path / "quiet", clips), tmp_path / "out.json", encoder=encoders / "audio")
    assert list(found) == ["statistics"]
    assert "dB quieter" in found["statistics"]["text"]


def test_a_file_is_measured_alone_and_one_that_cannot_be_read_is_named(clean_set, tmp_path, settings):
    assert examined(clean_set / NAMES[0], tmp_path / "out.json", settings) == {}
    write(tmp_path / "set", {"a.mov": clean(0)[NAMES[0]]})
    (tmp_path / "set" / "b.mp4").write_text("no video")
    found = examined(tmp_path / "set", tmp_path / "out.json", settings)
    assert found["unreadable"]["clips"] == ["b.mp4"]
    with pytest.raises(UserError, match=r"none of 1 clips can be read \(b.mp4: unreadable"):
        doctor.run(str(tmp_path / "set" / "b.mp4"), settings, None, None)


def test_sources_and_classes_of_a_list(clean_set, tmp_path, settings):
    rows = ["path,split,label,video_source"]
    rows += [f"{clean_set / name},{'test' if n > 5 else 'train'},{n},s{n % 7}" for n, name in enumerate(NAMES)]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = examined(tmp_path / "list.csv", tmp_path / "out.json", settings)
    assert list(found) == ["leak by source", "unknown class"]
    assert [len(one["clips"]) for one in found.values()] == [1, 2]
    assert found["leak by source"]["clips"][0].endswith("test/dog/1")


def test_a_prepared_data_set_and_its_statistics(miniature, tmp_path, monkeypatch):
    chosen = params.load(MINIATURE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "miniature").symlink_to(miniature)
    monkeypatch.chdir(tmp_path)
    doctor.run("miniature", chosen, None, tmp_path / "out.json")
    told = json.loads((tmp_path / "out.json").read_text())
    clips = open_clips(miniature / "manifest.csv")
    assert told["facts"]["clips"] == len(clips)
    waveforms = [clips.audio(number) for number in range(len(clips))]
    assert told["logmel"] == pytest.approx(one_pass(waveforms, chosen.logmel, chosen.clips.sample_rate), abs=1e-6)
    assert not {finding["kind"] for finding in told["findings"]} - {"statistics"}
    other = chosen.model_copy(update={"clips": chosen.clips.model_copy(update={"fps": chosen.clips.fps / 2})})
    assert "video rate" in examined(miniature / "manifest.csv", tmp_path / "out.json", other)


def test_exit_codes_and_outputs(clean_set, tmp_path, encoders, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["xkd", "doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0

    out = tmp_path / "out.json"
    assert call(clean_set, "--encoder", encoders / "audio", "--json", out) == 0
    assert call(clean_set, "--encoder", encoders / "video") == 3
    assert call(clean_set, "--encoder", encoders / "audio", "--json", out) == 2
    assert "already exists" in capsys.readouterr().err
    assert call(clean_set, "--encoder", encoders / "audio", "--json", clean_set / NAMES[0], "--force") == 2
    assert "never replaced" in capsys.readouterr().err
    assert call("nothing", "--encoder", encoders / "audio") == 2
    assert "no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "require", "left"), [("keep", "both", 2), ("drop", "both", 1), ("drop", "video", 2)]
)
def test_prepare_leaves_silent_clips_out_if_told_to(policy, require, left, tmp_path):
    clips = {name: clean(3)[name] for name in NAMES[:2]}
    clips[NAMES[0]][1] = np.zeros(RATE)
    write(tmp_path, clips)
    (tmp_path / "index.csv").write_text("\n".join(["path", *clips]))
    wanted = SimpleNamespace(
        dataset="own",
        datasets={"own": Dataset(kind="manifest", require=require)},
        clips=Clips(seconds=1, fps=FPS, size=32, sample_rate=RATE, silent=policy),
        limits=Limits(),
    )
    prepare.run(wanted, tmp_path / "index.csv", tmp_path / "out", processes=1)
    rows = manifest.read_manifest(tmp_path / "out" / "manifest.csv")
    assert len(rows.rows) == left
    assert manifest.reasons(rows.all_rows) == ({"silent": 1} if left == 1 else {})
