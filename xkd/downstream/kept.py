"""Scores of fitted classifiers on disk, until the evaluation that they belong to is written."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from xkd.downstream.scores import Scores
from xkd.files import digested, replacing, undigested
from xkd.protocols import Column


class KeptFits:
    """Fits of one evaluation: one file each, in a folder named after all that decides them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def kept(self, name: str, fit: Callable[[], Iterable[Scores]]) -> list[Scores]:
        """Returns the scores that were kept under a name, or those that `fit` returns now, and keeps them."""
        path = self.folder / f"{quote(name, safe='')}.npz"
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # none, or a damaged one
            found = list(fit())
            _write(path, found)
            return found

    def remove(self) -> None:
        """Removes all."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, found: list[Scores]) -> None:
    arrays: dict[str, Any] = {}
    for number, one in enumerate(found):
        about = {name: getattr(one, name) for name in ("joined", "chosen", "notes", "draws")}
        arrays |= {
            f"{number}.values": one.values,
            f"{number}.classes": one.classes,
            f"{number}.about": json.dumps(about | {"column": asdict(one.column)}),
        }
    content = io.BytesIO()
    np.savez(content, count=len(found), **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(digested(content.getvalue()))


def _read(path: Path) -> list[Scores]:
    with np.load(io.BytesIO(undigested(path.read_bytes())), allow_pickle=False) as file:
        return [_one(file, number) for number in range(int(file["count"]))]


def _one(file: np.lib.npyio.NpzFile, number: int) -> Scores:
    about = json.loads(str(file[f"{number}.about"]))
    about |= {"column": Column(**about["column"])} | {name: tuple(about[name]) for name in ("notes", "draws")}
    return Scores(values=file[f"{number}.values"], classes=file[f"{number}.classes"], **about)
