"""The smallest inputs that have shown a fault of xkd, each by a name. All of them are refused with one line now."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoder_folders import write_encoders
from run_folders import seal
from safetensors.torch import load_file, save_file

from xkd import runs
from xkd.cli.failures import fail
from xkd.encoders import folder
from xkd.encoders.importing import import_backbone
from xkd.encoders.pretrained import load_encoder
from xkd.errors import UserError
from xkd.report import curves
from xkd.runs.records import read_arrays
from xkd.settings import LogMel
from xkd.show.models import _refinement_of
from xkd.training.export import load_recipe, read_config

RELEASED = Path(__file__).parents[1] / "reference" / "released"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("found")) / "encoders"


@pytest.fixture
def encoder(encoders, tmp_path):
    """Returns a copy of an encoder's folder, and a function that changes keys of its config."""
    place = shutil.copytree(encoders / "video_student", tmp_path / "encoder")

    def change(**values):
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | values))

    return SimpleNamespace(path=place, change=change)


def test_integers_are_no_weights(encoder):
    tensors = load_file(encoder.path / "model.safetensors")
    save_file({**tensors, "embed.bias": tensors["embed.bias"].half()}, encoder.path / "model.safetensors")
    encoder.change(sha256={})
    folder.load(encoder.path)
    save_file({**tensors, "embed.bias": tensors["embed.bias"].to(torch.int8)}, encoder.path / "model.safetensors")
    with pytest.raises(UserError, match=r"embed.bias holds torch.int8, expected torch.float32"):
        folder.load(encoder.path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heads": 5}, "not a multiple of 5 heads"),
        ({"width": 10**7, "heads": 1}, "width: Input should be less than"),
        ({"width": 20_000, "heads": 1, "depth": 1000}, "has the shape|tensor"),
        ({"depth": 10**6}, "depth: Input should be less than"),
        ({"depth": 3}, "no tensor"),
        ({"grid": [4, 4, 5]}, r"a grid of \(4, 4, 5\) patches"),
        ({"grid": [4, 4]}, r"a grid of \(4, 4\) patches"),
        ({"input": {"frames": 8, "fps": 1e300, "short_side": 36, "size": 32}}, "fps: Input should be less than"),
    ],
)
def test_a_config_asks_for_a_network_that_is_not_in_the_folder(encoder, values, message):
    encoder.change(**values)
    with pytest.raises(UserError, match=message):
        folder.load(encoder.path)


@pytest.mark.parametrize("content", [DEEP, "[]", "null", '{"a":' * 50_000, "\xff"])
def test_a_file_of_json_is_nested_deeply_or_is_no_object(encoder, tmp_path, content):
    (encoder.path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="not the config of an encoder"):
        folder.load(encoder.path)
    run = tmp_path / "run"
    run.mkdir()
    for name in (runs.INDEX, runs.METRICS, runs.CONFIG):
        (run / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="the run is incomplete"):
        runs.check(run)
    with pytest.raises(UserError, match="does not say what it logs"):
        curves.read_columns(SimpleNamespace(folder=run))
    assert _refinement_of(run) is None


def test_the_settings_of_a_run_are_gone_though_its_index_knows_nothing_of_it(tmp_path):
    for content in ("{}", '{"recipe": 1, "seed": 0}', '{"recipe": {}, "seed": "x"}', DEEP):
        (tmp_path / runs.CONFIG).write_text(content)
        seal(tmp_path)
        with pytest.raises(UserError, match="does not say how the run was made"):
            read_config(tmp_path)
        with pytest.raises(UserError, match="does not say how the run was made"):
            load_recipe(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "compressed"])
def test_arrays_of_a_run_are_cut_off(tmp_path, damage):
    path = tmp_path / "samples.npz"
    np.savez(path, a=np.arange(100))
    content = bytearray(path.read_bytes())
    if damage == "compressed":
        content[8] = content[content.index(b"PK\1\2") + 10] = 99  # a method of compression that does not exist
    path.write_bytes({"empty": b"", "cut": content[:300]}.get(damage, content))
    with pytest.raises(UserError, match="unreadable"):
        read_arrays(path)


def _weights(tmp_path, change):
    tensors = dict(torch.load(next(RELEASED.glob("*aud_teacher.pth.tar")), weights_only=True))
    change(tensors)
    torch.save(tensors, tmp_path / "changed.pth.tar")
    return tmp_path / "changed.pth.tar"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"encoder.blocks.999999999.norm1.bias": torch.zeros(1)}), "1000000000 blocks"),
        (lambda t: t.update(cls_token=torch.zeros(1).expand(1, 1, 3 * 10**9)), "width: Input should be less than"),
    ],
)
def test_released_weights_name_more_than_they_hold(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        import_backbone(_weights(tmp_path, change), heads=3, patch=(4, 8), view=(16, 48))


def test_a_pickle_of_almost_anything_is_no_file_of_tensors(tmp_path):
    for number, content in enumerate((b"", b"\x80\x02.", b"\x80\x02}q\x00(K\x01u.", b"PK\3\4", b"\x80\x05\x95")):
        path = tmp_path / f"{number}.pth.tar"
        path.write_bytes(content)
        with pytest.raises(UserError, match="refused|not the tensors"):
            import_backbone(path)


def test_windows_of_odd_length_have_no_middle():
    with pytest.raises(ValueError, match="multiple of 2"):
        LogMel(n_fft=511)


@pytest.mark.parametrize(
    ("change", "sizes"),
    [
        (lambda t: t.update(cls_token=torch.zeros(1, 1, 0)), {"heads": None}),
        (lambda t: t.update({3: torch.zeros(1)}), {}),
        (lambda t: t.update({"encoder_norm.bias": torch.zeros(24).to_sparse()}), {}),
        (lambda t: None, {"view": (16, 8 * 10**9)}),
    ],
)
def test_released_weights_are_odd(tmp_path, change, sizes):
    with pytest.raises(UserError):
        import_backbone(_weights(tmp_path, change), **{"heads": 3, "patch": (4, 8), "view": (16, 48)} | sizes)


def test_a_cell_of_a_hundred_thousand_letters_is_not_shown_whole(capsys):
    with pytest.raises(SystemExit) as ended:
        fail(UserError(f"index.csv: line 2: path {'x' * 100_000} holds a control character; rename it"))
    shown = capsys.readouterr().err
    assert (ended.value.code, len(shown.splitlines())) == (2, 1)
    assert len(shown) < 1100
    assert shown.startswith("xkd: error: index.csv: line 2: path xxx")
    assert shown.endswith("x holds a control character; rename it\n")


def test_a_card_that_is_no_text_hinders_nothing(encoder):
    (encoder.path / "README.md").write_bytes(b"---\n\xff")
    assert load_encoder(encoder.path).card == "---\n\N{REPLACEMENT CHARACTER}"
