"""Released backbones give the features that the released code gives. XKD_RELEASED names another folder of them."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xkd import load_encoder
from xkd.encoders.importing import import_backbone
from xkd.errors import UserError
from xkd.stages import import_weights

FOLDER = Path(os.environ.get("XKD_RELEASED", Path(__file__).parent / "reference" / "released"))
SHORT = {"vid": "video", "aud": "audio"}


def known(spec, encoder, modality):
    patch, view = (
        ((spec["vt"], *spec["vp"]), (spec["t"], *spec["frame"][1:]))
        if modality == "video"
        else (tuple(spec["ap"]), tuple(spec["spec"]))
    )
    return {"heads": encoder["num_heads"], "patch": patch, "view": view}


def cases():
    """(weights file, features file, output) of every output of every features file."""
    for features in sorted(FOLDER.glob("*-features.npz")):
        variant = features.name.removesuffix("-features.npz").upper()
        for key in (k.removeprefix("out/") for k in np.load(features).files if k.startswith("out/")):
            short, owner, *_ = key.split("_")
            for weights in FOLDER.glob(f"{variant}_*{short}_{owner}.pth.tar"):
                yield pytest.param(weights, features, key, id=f"{variant}-{key}")


CASES = list(cases())


def imported(weights, features, tmp_path):
    meta = json.loads(str(np.load(features)["meta"]))
    modality = "video" if "cuboid_embed.proj.weight" in torch.load(weights, weights_only=True) else "audio"
    import_weights.run((weights,), tmp_path, **known(meta["spec"], meta["encoder"], modality))
    return load_encoder(tmp_path / weights.name.removesuffix(".pth.tar"))


def test_there_is_something_to_compare(capsys):
    with capsys.disabled():
        print(f"\nreleased weights: {len(CASES)} outputs in {FOLDER}")
    assert CASES


@pytest.mark.parametrize(("weights", "features", "key"), CASES)
def test_features_are_those_of_the_released_code(weights, features, key, tmp_path):
    numbers = np.load(features)
    short, owner, *resized = key.split("_")
    model = imported(weights, features, tmp_path)
    name = {"video": "video_larger", "audio": "audio_longer"}[SHORT[short]] if resized else SHORT[short]
    with torch.no_grad():
        got = model.encoder.features(torch.from_numpy(numbers[f"in/{name}"]).float())
    np.testing.assert_allclose(got.numpy(), numbers[f"out/{key}"], atol=1e-5, rtol=1e-5)
    assert (model.config.modality, model.config.owner) == (SHORT[short], owner)


@pytest.fixture
def audio():
    return next(FOLDER.glob("*aud_teacher.pth.tar"))


TINY = {"heads": 3, "patch": (4, 8), "view": (16, 48)}


def resaved(audio, tmp_path, change):
    tensors = dict(torch.load(audio, weights_only=True))
    change(tensors)
    path = tmp_path / "changed.pth.tar"
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder_norm.bias"), r"no tensor norm\.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown tensor extra"),
        (
            lambda t: t.update({"encoder_norm.bias": torch.zeros(5)}),
            r"norm\.bias has the shape \(5,\), expected \(24,\)",
        ),
        (lambda t: t.pop("patch_embed.proj.weight"), "no backbone of XKD"),
        (lambda t: t.pop("cls_token"), "no tensor cls_token"),
        (lambda t: t.update(optimizer={"lr": 1}), "not the tensors of one backbone"),
    ],
)
def test_wrong_files_are_refused_in_one_line(audio, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        import_backbone(resaved(audio, tmp_path, change), **TINY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": None}, "give --heads"),
        ({"heads": 5}, "do not divide the width"),
        ({"patch": (4, 16)}, "has 64 values, the file's has 32"),
        ({"view": (16, 50)}, "do not divide a view of 16x50"),
        ({"view": (16, 64)}, "32 patches, the file 24 positions"),
        ({"patch": (2, 8, 8)}, "is of audio, which has 2 axes"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(audio, wrong, message):
    with pytest.raises(UserError, match=message):
        import_backbone(audio, **TINY | wrong)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("bomb.pth.tar", "wb") as handle:
        pickle.dump({"cls_token": Bomb()}, handle)
    torch.save({"cls_token": Bomb()}, "bomb2.pth.tar")
    for name in ("bomb.pth.tar", "bomb2.pth.tar"):
        with pytest.raises(UserError, match="refused"):
            import_backbone(Path(name))
    assert not Path("exploded").exists()


def test_nothing_is_written_when_one_of_several_files_is_wrong(audio, tmp_path):
    wrong = resaved(audio, tmp_path, lambda t: t.pop("cls_token"))
    with pytest.raises(UserError):
        import_weights.run((audio, wrong), tmp_path / "out", **TINY)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_damaged_is_refused(audio, tmp_path):
    import_weights.run((audio,), tmp_path, **TINY)
    folder = tmp_path / audio.name.removesuffix(".pth.tar")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "norm.bias"}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no tensor norm\.bias"):
        load_encoder(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="missing or damaged"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config | {"wdth": 3}))
    with pytest.raises(UserError, match="wdth"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config | {"modality": "video"}))
    with pytest.raises(UserError, match="the input is not that of an encoder of video"):
        load_encoder(folder)


def test_full_size_backbones_have_the_parameters_of_the_paper(tmp_path):
    """ViT-B per modality: 87.69 M values in a video encoder, 85.51 M in an audio encoder."""
    from xkd.encoders import folder, released
    from xkd.encoders.config import AudioInput, EncoderConfig, VideoInput
    from xkd.settings import LogMel

    sizes = {"owner": "teacher", "width": 768, "depth": 12, "heads": 12, "origin": "test", "licence": "none"}
    video = VideoInput(frames=32, fps=8, short_side=128, size=112)
    sound = AudioInput(frames=448, sample_rate=16000, logmel=LogMel())
    for modality, patch, grid, fed, millions in (
        ("video", (4, 16, 16), (8, 7, 7), video, 87.69),
        ("audio", (4, 16), (20, 28), sound, 85.51),
    ):
        with torch.device("meta"):
            encoder = folder.build(EncoderConfig(modality=modality, patch=patch, grid=grid, input=fed, **sizes))
        assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
        state = {released.encoder_key(modality, k): v.shape for k, v in encoder.state_dict().items()}
        path = tmp_path / f"XKD_ep799{modality[:3]}_teacher.pth.tar"
        torch.save({key: torch.zeros(()).expand(shape) for key, shape in state.items()}, path)
        assert import_backbone(path)[1].model_dump(include={"heads", "patch", "grid", "input"}) == {
            "heads": 12,
            "patch": patch,
            "grid": grid,
            "input": fed.model_dump(),
        }
