"""Encoders as ONNX and torch.export files: the same features in other runtimes, and what a file says of itself."""

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from encoder_folders import SIZES, SOUND, VIDEO

from xkd import load_encoder
from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig
from xkd.encoders.exchange import formats
from xkd.encoders.exchange.graph import EncoderGraph
from xkd.encoders.exchange.waveform import ConvolvedLogMel
from xkd.errors import UserError
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.settings import LogMel
from xkd.stages import export

SHAPES = {"video": ((2, 8, 8), (4, 4, 4), VIDEO), "audio": ((8, 8), (5, 12), SOUND)}
NAMES = {"video": "frames", "audio": "samples"}
HOP = SOUND.logmel.hop


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Returns a function that writes an encoder of a modality and a backbone, once, and returns its folder."""
    root = tmp_path_factory.mktemp("encoders")

    def write(modality, arch="vit"):
        place, (patch, grid, fed) = root / f"{modality}_{arch}", SHAPES[modality]
        if not place.exists():
            torch.manual_seed(0)
            sizes = SIZES | {"depth": 1, "arch": arch}
            config = EncoderConfig(modality=modality, patch=patch, grid=grid, input=fed, **sizes)
            folder.save(folder.build(config), config, place)
        return place

    return write


@pytest.fixture(scope="module")
def exported(encoder, tmp_path_factory):
    """Returns a function that exports an encoder, once, and returns the file."""
    root = tmp_path_factory.mktemp("exported")

    def write(modality, arch, file_format):
        path = root / f"{modality}.{arch}.{file_format}"
        if not path.exists():
            export.run(encoder(modality, arch), path, file_format)
        return path

    return write


def onnx_features(path, clips):
    session = onnxruntime.InferenceSession(path)
    (features,) = session.run(["features"], {session.get_inputs()[0].name: clips.numpy()})
    return features


def torch_features(path, clips):
    with open(path, "rb") as file:
        return torch.export.load(file).module()(clips).numpy()


def test_features_of_onnx_files_are_those_of_encoders(encoder, exported):
    for modality in SHAPES:
        _compare(modality, encoder(modality), exported(modality, "vit", "onnx"), onnx_features)


def test_features_of_a_torch_export_file_are_those_of_the_encoder(encoder, exported):
    """Of another backbone, too, whose positions need no table."""
    _compare("video", encoder("video", "rope"), exported("video", "rope", "torch_export"), torch_features)


def _compare(modality, place, path, features):
    """Compares lengths that are the trained one, fill whole patches, leave a rest, and are the shortest."""
    model, draws = load_encoder(place), np.random.default_rng(0)
    if modality == "video":
        clips = [draws.integers(0, 256, (b, n, 36, 36, 3), np.uint8) for b, n in ((1, 8), (2, 8), (3, 4), (2, 13))]
        rate = ()
    else:
        lengths = (96 * HOP, 79 * HOP, 80 * HOP - 1, 16 * HOP, 141 * HOP + 7)
        clips = [draws.normal(0, 0.1, (b, n)).astype(np.float32) for n in lengths for b in (1, 3)]
        rate = (SOUND.sample_rate,)
    for batch in clips:
        expected = model(batch, *rate).numpy()
        np.testing.assert_allclose(features(path, torch.from_numpy(batch)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("modality", "said"),
    [
        ("video", ["uint8", "36 pixels", "32 x 32", "RGB", "8 per second", "at least 4"]),
        ("audio", ["float32", "[-1, 1]", "mono", "16000 per second", "at least 2560"]),
    ],
)
def test_a_file_says_what_it_takes(encoder, exported, modality, said):
    model = onnx.load(exported(modality, "vit", "onnx"))
    onnx.checker.check_model(model)
    (given,), (made,) = model.graph.input, model.graph.output
    words = {entry.key: entry.value for entry in model.metadata_props}
    assert (given.name, made.name) == (NAMES[modality], "features")
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim][:2] == [
        "batch",
        NAMES[modality],
    ]
    assert words[given.name] == given.doc_string
    assert all(part in given.doc_string for part in said), given.doc_string
    assert "mean of the patch tokens" in made.doc_string
    config = folder.read_config(encoder(modality))
    assert EncoderConfig.model_validate_json(words["config"]) == config
    assert (words["licence"], words["origin"]) == (config.licence, config.origin)


def test_a_torch_export_file_says_the_same(encoder, exported):
    files = {"xkd.json": ""}
    with open(exported("video", "rope", "torch_export"), "rb") as file:
        torch.export.load(file, extra_files=files)
    assert json.loads(files["xkd.json"]) == EncoderGraph(load_encoder(encoder("video", "rope"))).words


def test_frames_of_another_size_are_refused(exported):
    with pytest.raises(Exception, match="invalid dimensions"):
        onnx_features(exported("video", "vit", "onnx"), torch.zeros(1, 8, 32, 32, 3, dtype=torch.uint8))


@pytest.mark.parametrize("difference", [0.0, 2e-5, float("nan")])
def test_a_file_that_differs_is_not_kept(encoder, tmp_path, monkeypatch, capsys, difference):
    graph = EncoderGraph(load_encoder(encoder("video"))).eval()
    fake = formats.Format(
        check=lambda: None,
        write=lambda program, name, words, path: path.write_text("another"),
        load=lambda path: lambda clips: graph(clips) + difference,
    )
    monkeypatch.setattr(export, "traced", lambda graph: None)
    monkeypatch.setitem(formats.FORMATS, "onnx", fake)
    output = tmp_path / "x.onnx"
    output.write_text("mine")
    if difference == 0:
        export.run(encoder("video"), output, "onnx", force=True)
        assert "differ by at most" in capsys.readouterr().err
    else:
        with pytest.raises(UserError, match=r"x\.onnx: not written; its features differ"):
            export.run(encoder("video"), output, "onnx", force=True)
    assert output.read_text() == ("mine" if difference else "another")
    assert list(tmp_path.iterdir()) == [output]


def test_a_file_that_its_runtime_does_not_run_is_not_kept(encoder, tmp_path, monkeypatch):
    def load(path):
        def run(clips):
            raise ValueError("axis 1\nof a node")

        return run

    fake = formats.Format(lambda: None, lambda program, name, words, path: path.write_text("another"), load)
    monkeypatch.setattr(export, "traced", lambda graph: None)
    monkeypatch.setitem(formats.FORMATS, "onnx", fake)
    with pytest.raises(UserError, match=r"does not run for clips of \(1, 4, 36, 36, 3\): axis 1$"):
        export.run(encoder("video"), tmp_path / "x.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_a_line_that_says_what_to_install(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'xkd\[onnx\]'"):
        export.run(encoder("audio"), tmp_path / "x.onnx", "onnx")


@pytest.mark.parametrize(("modality", "lengths"), [("video", (1, 2, 3, 4, 5, 9)), ("audio", (1, 5, 11, 12, 13, 40))])
def test_positions_of_any_length_are_those_of_the_encoder(encoder, modality, lengths):
    model = load_encoder(encoder(modality))
    traced, axis = EncoderGraph(model).encoder, model.modality.time_axis
    for length in lengths:
        grid = tuple(length if at == axis else size for at, size in enumerate(model.config.grid))
        torch.testing.assert_close(traced.positions_for(grid), model.encoder.positions_for(grid), atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", [SOUND.logmel, LogMel(), LogMel(n_fft=250, hop=80, n_mels=24, f_max=4000)])
def test_the_convolved_log_mel_is_the_log_mel(settings):
    logmel = LogMelSpectrogram(settings, 16000)
    noise, place = torch.rand(4000, generator=torch.Generator().manual_seed(0)) - 0.5, torch.arange(4000)
    sounds = torch.stack([noise, noise * 1e-3, torch.zeros(4000), (place % 900 == 0).float()])
    torch.testing.assert_close(ConvolvedLogMel(logmel)(sounds), logmel(sounds), atol=3e-6, rtol=0)
