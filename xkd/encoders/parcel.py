"""What is sent of an encoder or of a run: its files by name, with cards and configs that are for others to read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

from xkd.encoders import folder
from xkd.encoders.card import Known, card
from xkd.encoders.config import EncoderConfig
from xkd.files import sha256

Content = Path | bytes  # a file, or what is written for this purpose
Files = Mapping[str, Content]


def of_encoders(folders: Mapping[str, Path], known: Callable[[list[EncoderConfig]], Known]) -> dict[str, Content]:
    """Returns the files of encoders, those first that others need: weights, cards, configs.

    A config has the hash of all weights, and of a plugin's path the file name alone. No other file of the folders is
    sent.

    Args:
        folders: by subfolder; of one encoder alone, by "".
        known: gives what is known of encoders beyond their configs, for their card.

    Raises:
        UserError: no encoders, or files that are not those that were written.
    """
    weights: dict[str, Content] = {}
    configs = {}
    for place, path in folders.items():
        config, there = folder.checked(path)
        configs[place] = _for_others(config)
        weights |= {within(place, name): file for name, file in there.items()}
    texts = {within(place, folder.CARD): card({place: one}, known([one])) for place, one in configs.items()}
    texts.setdefault(folder.CARD, card(configs, known(list(configs.values()))))
    texts |= {within(place, folder.CONFIG): _json(config) for place, config in configs.items()}
    return weights | {name: text.encode() for name, text in texts.items()}


def within(place: str, name: str) -> str:
    """Returns the name of a file in a subfolder, "" for none."""
    return f"{place}/{name}" if place else name


def size(content: Content) -> int:
    """Returns a number of bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def digest(content: Content) -> str:
    """Returns the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256(content)


def _json(config: EncoderConfig) -> str:
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def _for_others(config: EncoderConfig) -> EncoderConfig:
    return config.model_copy(update={"plugin": PurePath(config.plugin).name if config.plugin else None})
