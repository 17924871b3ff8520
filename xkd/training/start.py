"""Starting from trained encoders instead of random ones: those of another run, or imported ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig
from xkd.errors import UserError
from xkd.models.encoder import Encoder
from xkd.models.networks import Networks

SAME = ("arch", "settings", "width", "depth", "heads", "patch", "grid")


def given_encoders(weights: tuple[str, ...]) -> dict[str, EncoderConfig]:
    """Reads the configs of the encoders in these folders, by modality, video first.

    Raises:
        UserError: no encoder there, or two of one modality.
    """
    configs = [folder.read_config(Path(path)) for path in weights]
    found = {
        str(config.modality): config for config in sorted(configs, key=lambda config: config.modality, reverse=True)
    }
    if len(found) < len(configs):
        raise UserError(f"training.weights: {', '.join(weights)}: two encoders of one modality; a row has one of each")
    return found


def start_from(networks: Networks, weights: tuple[str, ...], expected: dict[str, EncoderConfig]) -> None:
    """Copies encoders into the students, and into their teachers.

    Args:
        networks: with random weights.
        weights: one encoder's folder per modality.
        expected: the config that the settings give, per modality.

    Raises:
        UserError: an encoder of another size, or trained on other views than those of the settings.
    """
    given = {}
    for path in weights:
        encoder, config = folder.load(Path(path))
        _check(path, config, expected[config.modality])
        networks.students[config.modality].load_state_dict(encoder.state_dict())
        given[config.modality] = (path, encoder)
    for modality, (path, encoder) in given.items():
        if not _equal(networks.students[modality], encoder):
            raise UserError(f"{path}: model.share says that blocks are shared, but these encoders have different ones")
        if modality in networks.teachers:
            networks.teachers[modality].load_state_dict(encoder.state_dict())


def _check(path: str, config: EncoderConfig, expected: EncoderConfig) -> None:
    pairs = {name: (getattr(config, name), getattr(expected, name)) for name in SAME}
    for name in config.input.SAME:
        pairs[f"input.{name}"] = (getattr(config.input, name), getattr(expected.input, name))
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise UserError(
                f"{path}: {name} is {theirs}, the settings ask for {ours}; use the settings that it was trained with "
                "(those of the released encoders: workflow/presets/paper.yaml)"
            )


def _equal(one: Encoder, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
