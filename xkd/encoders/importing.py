"""Reads released backbones (`*.pth.tar`) as encoders (method section 5)."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from xkd.encoders import folder
from xkd.encoders.config import INPUTS, AudioInput, EncoderConfig, VideoInput
from xkd.encoders.released import EMBEDDINGS, encoder_key
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.models.encoder import Encoder
from xkd.settings import LogMel, Model, Views

LICENCE = "CC BY-NC 4.0 (weights released by the authors of XKD)"
HEAD_WIDTH = 64  # of every released network


def import_backbone(
    path: Path,
    heads: int | None = None,
    patch: tuple[int, ...] | None = None,
    view: tuple[int, ...] | None = None,
) -> tuple[Encoder, EncoderConfig]:
    """Reads one released file.

    Its tensors show width, depth and modality. They do not show the number of heads, nor the shape of a patch and of a
    view, which come from the released settings and are checked against the numbers of values and patches in the file.

    Args:
        heads: attention heads; by default one per 64 of the width.
        patch: (frames, rows, columns) or (mel bands, columns); by default the released 4 x 16 x 16 or 4 x 16.
        view: (frames, rows, columns) or (mel bands, columns) of the views it was trained on; by default
            32 x 112 x 112 or 80 x 448.

    Raises:
        UserError: no such file, no plain tensors, missing or unknown keys, wrong shapes, or sizes that do not fit.
    """
    tensors = read_tensors(path)
    modality = _modality(tensors, path)
    patch = patch or Model().patch(modality)
    view = view or next(iter(Views().of(modality).values())).shape(LogMel())
    width = _size(tensors, "cls_token", -1, path)
    grid = _grid(tensors, modality, patch, view, path)
    if heads is None and width % HEAD_WIDTH:
        raise UserError(f"{path}: heads of a width of {width} are not known; give --heads")
    heads, depth = heads or max(width // HEAD_WIDTH, 1), _depth(tensors)
    if width % heads:
        raise UserError(f"{path}: {heads} heads do not divide the width of {width}")
    if depth > len(tensors):
        raise UserError(f"{path}: names {depth} blocks, and holds {len(tensors)} tensors")
    about = {
        "modality": modality,
        "owner": "student" if "student" in path.name else "teacher",
        "width": width,
        "depth": depth,
        "heads": heads,
        "patch": patch,
        "grid": grid,
        "input": _input(modality, view),
        "origin": f"released file {path.name}",
        "licence": LICENCE,
    }
    config = folder.checked_config(about, path)
    with torch.device("meta"):
        ours = {encoder_key(modality, name): name for name in folder.build(config).state_dict()}
    named = {ours.get(key, key): value.float() for key, value in tensors.items()}
    return folder.filled(lambda: folder.build(config), named, path), config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a PyTorch file without running code from it.

    Raises:
        UserError: no such file, or anything in it but named tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (damaged bytes raise almost anything)
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a file of plain tensors, refused ({reason})") from None
    if not isinstance(loaded, dict) or not all(map(_plain, loaded.keys(), loaded.values())) or not loaded:
        raise UserError(f"{path}: not the tensors of one backbone")
    return loaded


def _plain(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _input(modality: str, view: tuple[int, ...]) -> VideoInput | AudioInput:
    try:
        return INPUTS[modality].of_view(view)
    except ValueError:
        raise UserError(f"--view {'x'.join(map(str, view))}: no encoder has such views") from None


def _modality(tensors: dict[str, Tensor], path: Path) -> str:
    found = [m for m, key in EMBEDDINGS.items() if f"{key}.weight" in tensors]
    if len(found) != 1:
        raise UserError(f"{path}: no backbone of XKD: it has neither or both of {' and '.join(EMBEDDINGS.values())}")
    return found[0]


def _size(tensors: dict[str, Tensor], key: str, axis: int, path: Path) -> int:
    if key not in tensors or tensors[key].ndim == 0:
        raise UserError(f"{path}: no tensor {key}")
    return tensors[key].shape[axis]


def _depth(tensors: dict[str, Tensor]) -> int:
    numbers = [int(match[1]) for key in tensors if (match := re.match(r"encoder\.blocks\.(\d+)\.", key))]
    return max(numbers, default=0) + 1


def _grid(
    tensors: dict[str, Tensor], modality: str, patch: tuple[int, ...], view: tuple[int, ...], path: Path
) -> tuple[int, ...]:
    """Returns the patches along each axis, checked against the embedding and the positions of the file."""
    text = {"patch": "x".join(map(str, patch)), "view": "x".join(map(str, view))}
    axes = len(Model().patch(modality))
    for name, value in (("patch", patch), ("view", view)):
        if len(value) != axes:
            raise UserError(f"--{name} {text[name]}: {path.name} is of {modality}, which has {axes} axes")
    values = prod(patch) * MODALITIES[modality].channels
    there = _size(tensors, f"{EMBEDDINGS[modality]}.weight", -1, path)
    if values != there:
        raise UserError(f"{path}: a patch of {text['patch']} has {values} values, the file's has {there}; give --patch")
    if any(length % part for length, part in zip(view, patch, strict=True)):
        raise UserError(f"{path}: patches of {text['patch']} do not divide a view of {text['view']}; give --view")
    grid = tuple(length // part for length, part in zip(view, patch, strict=True))
    positions = _size(tensors, "enc_pos_embed", -2, path) - 1
    if prod(grid) != positions:
        raise UserError(
            f"{path}: a view of {text['view']} has {prod(grid)} patches, the file {positions} positions; give --view"
        )
    return grid
