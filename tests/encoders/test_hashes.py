"""An encoder's folder whose weights are not those that were written is refused."""

import json
import random
import shutil

import pytest
import torch
from encoder_folders import write_encoders

from xkd import load_encoder
from xkd.encoders import folder
from xkd.errors import UserError


@pytest.fixture
def audio(tmp_path):
    return write_encoders(tmp_path) / "encoders" / "audio_student"


def test_one_flipped_bit_anywhere_is_an_error_of_one_line(audio):
    """In the header of the file, too: its names and shapes."""
    path = audio / "model.safetensors"
    whole, draws = path.read_bytes(), random.Random(0)
    header = int.from_bytes(whole[:8], "little") + 8
    places = [*draws.choices(range(header), k=50), *draws.choices(range(len(whole)), k=150)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draws.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"model\.safetensors: not the file .*; copy the folder again$") as caught:
            load_encoder(audio)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    load_encoder(audio)


def test_a_head_or_weights_of_another_encoder_are_refused(audio):
    shutil.copy(audio.with_name("video_student") / "head.safetensors", audio)
    with pytest.raises(UserError, match=r"head\.safetensors: not the file"):
        folder.load_head(audio)
    (audio / "head.safetensors").unlink()
    with pytest.raises(UserError, match=r"head\.safetensors: missing"):
        folder.load_head(audio)
    encoder, config = folder.load(audio)
    folder.save(encoder, config, audio)  # without a head
    assert folder.load_head(audio) is None
    shutil.copy(audio.with_name("video_student") / "head.safetensors", audio)
    with pytest.raises(UserError, match=r"head\.safetensors: not the file"):
        folder.load_head(audio)


def test_weights_that_were_saved_again_have_a_hash_of_their_own(audio, tmp_path):
    encoder, config = folder.load(audio)
    with torch.no_grad():
        encoder.norm.bias.add_(1)
    folder.save(encoder, config, tmp_path / "copy")
    assert torch.equal(folder.load(tmp_path / "copy")[0].norm.bias, encoder.norm.bias)
    assert folder.read_config(tmp_path / "copy").sha256 != config.sha256


def test_folders_of_earlier_versions_load_in_silence(audio, capsys, recwarn):
    now = load_encoder(audio).state_dict()
    config = json.loads((audio / "config.json").read_text())
    del config["sha256"]
    (audio / "config.json").write_text(json.dumps(config))
    assert all(torch.equal(value, now[name]) for name, value in load_encoder(audio).state_dict().items())
    assert folder.load_head(audio) is not None
    assert (*capsys.readouterr(), len(recwarn)) == ("", "", 0)
