"""Loads the encoders to look through: of one folder, of several, or all of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xkd import registry, runs
from xkd.data.windows import Window
from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig
from xkd.encoders.pretrained import PretrainedEncoder
from xkd.errors import UserError
from xkd.files import read_json
from xkd.modalities import MODALITIES
from xkd.models.decoder import PatchDecoder

PAPER_REFINEMENT = "mean"


@dataclass(frozen=True)
class Models:
    """The networks to look through.

    Attributes:
        encoders: by (owner, modality).
        decoders: of students, by modality.
        refinement: how the run refines, or the paper's way where no run says it.
        name: of the run or the folder, for people.
    """

    encoders: dict[tuple[str, str], PretrainedEncoder]
    decoders: dict[str, PatchDecoder]
    refinement: str
    name: str

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if any(modality == m for _, modality in self.encoders))

    def of(self, modality: str, owners: tuple[str, str]) -> tuple[str, PretrainedEncoder]:
        """Returns the first owner's encoder, or the second's, and whose it is."""
        owner = next(owner for owner in owners if (owner, modality) in self.encoders)
        return owner, self.encoders[owner, modality]

    def windows(self) -> dict[str, Window]:
        """Returns how a file is cut for each modality."""
        configs = {m: self.of(m, ("student", "teacher"))[1].config for m in self.modalities}
        return {m: Window(m, config.input.length, config.input.rate, config.pad) for m, config in configs.items()}


def gather(paths: tuple[Path, ...]) -> Models:
    """Loads every encoder that the folders hold.

    Args:
        paths: each an encoder's folder, a run, or a folder of encoders' folders.

    Raises:
        UserError: no encoder, two of one owner and modality, or two that see clips differently.
    """
    encoders: dict[tuple[str, str], PretrainedEncoder] = {}
    decoders: dict[str, PatchDecoder] = {}
    sources: dict[tuple[str, str], Path] = {}
    for path in (found for given in paths for found in _encoder_folders(given)):
        encoder, config = folder.load(path)
        key = config.owner, config.modality
        if key in encoders:
            raise UserError(
                f"{path}: a second {config.modality} {config.owner} beside {sources[key]}; give one of them"
            )
        _check_same_view(path, config, encoders)
        encoders[key], sources[key] = PretrainedEncoder(encoder, config).eval(), path
        decoder = folder.load_decoder(path, config)
        if decoder is not None:
            decoders[config.modality] = decoder
    refinement = next(filter(None, map(_refinement_of, paths)), PAPER_REFINEMENT)
    return Models(encoders, decoders, refinement, ", ".join(map(str, paths)))


def _encoder_folders(given: Path) -> Iterator[Path]:
    if not given.is_dir():
        raise UserError(f"{given}: no such folder; --encoder takes an encoder's folder, or that of a run")
    if (given / folder.WEIGHTS).is_file():
        yield given
        return
    if runs.is_run(given):
        yield from runs.encoder_folders(given)
        return
    found = sorted(path.parent for pattern in ("encoders/*", "*") for path in given.glob(f"{pattern}/{folder.WEIGHTS}"))
    if not found:
        raise UserError(f"{given}: no encoders there (no {folder.WEIGHTS}); give an encoder's folder, or that of a run")
    yield from found


def _check_same_view(path: Path, config: EncoderConfig, encoders: dict[tuple[str, str], PretrainedEncoder]) -> None:
    for (owner, modality), other in encoders.items():
        if modality == config.modality and other.config.input != config.input:
            raise UserError(
                f"{path}: sees clips differently than the {modality} {owner}; show them one after the other"
            )


def _refinement_of(given: Path) -> str | None:
    """Reads how a run refines; None for folders that are no run."""
    try:
        kind = read_json(given / folder.CONFIG)["recipe"]["objective"]["refinement"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kind if kind in (*registry.refinements.names, *registry.refinements.reserved) else None
