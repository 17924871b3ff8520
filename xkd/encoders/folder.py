"""Reads and writes an encoder's folder: model.safetensors, config.json and README.md, the model card.

Where its training had them, head.safetensors holds the projection head and decoder.safetensors a student's decoder.
The config has the SHA-256 of each of these files, which loading compares.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xkd import registry, runs
from xkd.encoders.card import card
from xkd.encoders.config import EncoderConfig
from xkd.errors import UserError
from xkd.files import read_json, replacing, sha256, write_json
from xkd.models.backbones import build_encoder
from xkd.models.decoder import PatchDecoder
from xkd.models.encoder import Backbone, Encoder, ModalityShape
from xkd.models.head import ProjectionHead

WEIGHTS, HEAD, DECODER = "model.safetensors", "head.safetensors", "decoder.safetensors"
CONFIG, CARD = "config.json", "README.md"
PEER = "peer.json"  # in the place of the config, of an encoder that is not ours
FILES = (WEIGHTS, HEAD, DECODER, CARD, CONFIG)


def plugin_settings(arch: str, values: Mapping[str, Any]) -> Any:
    """Returns a backbone's own settings, validated; None for a backbone that has none, as ours.

    Raises:
        UserError: no such backbone.
        ValidationError: unknown keys or values.
    """
    own = registry.backbones[arch].Settings
    return own.model_validate(values) if own else None


def described(backbone: Backbone) -> dict[str, Any]:
    """Returns the part of a config that `build` rebuilds a backbone from."""
    plugin = registry.backbones.file(backbone.arch)
    return {
        "arch": backbone.arch,
        "settings": backbone.settings.model_dump(mode="json") if backbone.settings else {},
        "plugin": os.path.relpath(plugin) if plugin else None,
        "width": backbone.width,
        "depth": backbone.depth,
        "heads": backbone.heads,
    }


def build(config: EncoderConfig) -> Encoder:
    """Builds the network that a config describes, with random weights.

    Raises:
        UserError: the backbone is a plugin's, which is not loaded.
    """
    if config.arch not in registry.backbones:
        plugin = config.plugin or "the file that registers it"
        raise UserError(
            f"an encoder of the backbone '{config.arch}', which a plugin defines; load it first: "
            f'import xkd.plugins; xkd.plugins.load(["{plugin}"])'
        )
    own = plugin_settings(config.arch, config.settings)
    backbone = Backbone(config.arch, config.width, config.depth, config.heads, settings=own)
    return build_encoder(ModalityShape(config.patch, config.grid, config.channels), backbone)


def build_decoder(config: EncoderConfig) -> PatchDecoder | None:
    """Builds the decoder that a config describes, with random weights; None if it describes none."""
    sizes, values = config.decoder, math.prod(config.patch) * config.channels
    if sizes is None:
        return None
    return PatchDecoder(config.grid, values, config.width, sizes.width, sizes.depth, sizes.heads)


def save(
    encoder: Encoder,
    config: EncoderConfig,
    folder: Path,
    head: ProjectionHead | None = None,
    decoder: PatchDecoder | None = None,
) -> None:
    """Writes the folder of an encoder; files that are there already are replaced.

    Args:
        head: the projection head that it was trained with, if any.
        decoder: the one that `config.decoder` describes, if any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for name, network in ((WEIGHTS, encoder), (HEAD, head), (DECODER, decoder)):
        if network is None:
            (folder / name).unlink(missing_ok=True)
        else:
            tensors = {key: value.detach().cpu().clone().contiguous() for key, value in network.state_dict().items()}
            with replacing(folder / name) as path:
                _save(tensors, path)
                hashes[name] = sha256(path)
    describe(config.model_copy(update={"sha256": hashes}), folder)


def describe(config: EncoderConfig, folder: Path, text: str | None = None) -> None:
    """Writes the card, then the config, beside weights.

    Args:
        text: of the card, if not what follows from the config.
    """
    with replacing(folder / CARD) as path:
        path.write_text(text or card({"": config}), encoding="utf-8")
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors; a failed write is an OSError, as for all other files."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def load(folder: Path) -> tuple[Encoder, EncoderConfig]:
    """Loads the encoder of a folder, in evaluation mode, and its config.

    Raises:
        UserError: no encoder there, an unknown config or backbone, or weights that do not fit it; files that are not
            those that were written with the config or, within a run, by the run.
    """
    config, hashes = _opened(folder)
    return filled(lambda: build(config), _tensors(folder / WEIGHTS, hashes), folder / WEIGHTS), config


def load_head(folder: Path) -> ProjectionHead | None:
    """Loads the projection head beside an encoder, in evaluation mode; None where its training had none.

    Raises:
        UserError: as of `load`, or not the tensors of a head.
    """
    path, (config, hashes) = folder / HEAD, _opened(folder)
    if not path.is_file() and HEAD not in config.sha256:
        return None
    tensors = _tensors(path, hashes)
    try:
        (hidden, width), (out, bottleneck) = (tensors[name].shape for name in ("layer1.weight", "directions"))
    except (KeyError, ValueError):
        raise UserError(f"{path}: not a projection head") from None
    head: ProjectionHead = filled(lambda: ProjectionHead(width, hidden, bottleneck, out), tensors, path)
    return head


def load_decoder(folder: Path, config: EncoderConfig) -> PatchDecoder | None:
    """Loads the decoder of a student, in evaluation mode; None for an encoder that is stored without one.

    Raises:
        UserError: the file is missing, damaged, or does not fit the config.
    """
    if config.decoder is None:
        return None
    tensors = _tensors(folder / DECODER, _opened(folder)[1])
    decoder: PatchDecoder = filled(lambda: build_decoder(config), tensors, folder / DECODER)
    return decoder


def checked(folder: Path) -> tuple[EncoderConfig, dict[str, Path]]:
    """Returns a config that has the hash of each file of weights, and these files by name, after comparing them.

    Raises:
        UserError: as of `load`, apart from what the weights are.
    """
    config, _ = _opened(folder)
    there = {name: folder / name for name in (WEIGHTS, HEAD, DECODER) if (folder / name).is_file()}
    for name in {WEIGHTS, *config.sha256} - there.keys():
        raise UserError(f"{folder / name}: missing")
    hashes = {name: sha256(path) for name, path in there.items()}
    for name, digest in hashes.items():
        _compare(there[name], digest, config.sha256)
    return config.model_copy(update={"sha256": hashes}), there


def filled(build: Callable[[], Any], tensors: dict[str, Tensor], path: Path) -> Any:
    """Builds a network and fills it; before memory is taken for what a config asks for, the shapes are compared.

    Raises:
        UserError: it cannot be built, or has other tensors.
    """
    odd = (RuntimeError, ValueError, TypeError)
    with suppress(*odd), torch.device("meta"):  # on which some plugins cannot be built: they compute with numbers
        check_shapes(build(), tensors, path)
    try:
        network: nn.Module = build()
    except odd as error:
        raise UserError(f"{path}: a network of these sizes cannot be built ({str(error).splitlines()[0]})") from None
    load_strictly(network, tensors, path)
    return network.requires_grad_(False).eval()


def _opened(folder: Path) -> tuple[EncoderConfig, runs.Hashes]:
    """Reads a config, and the hashes that are left to compare: none within a run, whose index has been compared."""
    listed = runs.check_encoder(folder)
    config = read_config(folder)
    return config, {} if listed else config.sha256


def _tensors(path: Path, hashes: runs.Hashes) -> dict[str, Tensor]:
    try:
        if hashes:
            _compare(path, sha256(path), hashes)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: missing or damaged ({error})") from None


def _compare(path: Path, digest: str, hashes: runs.Hashes) -> None:
    if hashes and digest != hashes.get(path.name):
        raise UserError(f"{path}: not the file that {CONFIG} was written with (SHA-256); copy the folder again")


def load_strictly(network: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Copies every tensor, after `check_shapes`."""
    check_shapes(network, tensors, source)
    network.load_state_dict(tensors)


def check_shapes(network: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Checks that names and shapes of tensors are those of a network, and that none holds integers for its weights.

    Raises:
        UserError: names what is missing, unknown, of another shape, or of another kind.
    """
    wanted = network.state_dict()
    for word, names in (("no", wanted.keys() - tensors.keys()), ("an unknown", tensors.keys() - wanted.keys())):
        if names:
            raise UserError(f"{source}: {word} tensor {min(names)} (and {len(names) - 1} more)")
    for name, own in wanted.items():
        found = tensors[name]
        if found.shape != own.shape:
            raise UserError(f"{source}: {name} has the shape {tuple(found.shape)}, expected {tuple(own.shape)}")
        if found.is_floating_point() != own.is_floating_point():
            raise UserError(f"{source}: {name} holds {found.dtype}, expected {own.dtype}")


def read_config(folder: Path) -> EncoderConfig:
    """Reads the config of the encoder of a folder.

    Raises:
        UserError: no encoder there, or an unknown config.
    """
    path = folder / CONFIG
    if (folder / PEER).exists():
        raise UserError(f"{folder}: an encoder that is not ours, for rows of tables only ({PEER} says which)")
    if not path.exists():
        raise UserError(f"{path}: missing; name the folder of an encoder, such as RUN/encoders/video_student")
    try:
        return checked_config(read_json(path), path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not the config of an encoder ({error})") from None


def checked_config(values: dict[str, Any], path: Path) -> EncoderConfig:
    """Returns the config that values describe; `path` begins the message of the UserError if they describe none."""
    try:
        return EncoderConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: not the config of an encoder ({'; '.join(_plain(error))})") from None


def _plain(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
