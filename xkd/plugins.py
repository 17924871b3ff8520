"""Imports plugins, Python files of the user's, and computes the hash of their code (docs/plugins.md).

They register terms, discrepancies, refinements, backbones, protocols, augmentations, encoders of others and data set
layouts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from xkd import protocols as _ours  # noqa: F401  registers our own; its code counts where it is read, not where settings are
from xkd import registry
from xkd.errors import UserError
from xkd.fingerprint import code_of_file

_loaded: dict[Path, str] = {}  # path to the hash of the code that was imported


def load(paths: Iterable[str]) -> None:
    """Imports plugin files, each once; a file that has changed since is imported anew.

    Args:
        paths: relative to the current directory.

    Raises:
        UserError: a file is missing, cannot be imported, or registers a name that is taken.
    """
    for path in paths:
        file = Path(path).resolve()
        code = _code(file, path)
        if _loaded.get(file) != code:
            _forget(file)
            _import(file, path)
            _loaded[file] = code


def use(paths: Collection[str]) -> None:
    """Imports plugin files, and forgets all others: settings know the names of their own plugins only.

    Args, Raises: as of `load`.
    """
    wanted = {Path(path).resolve() for path in paths}
    for file in [file for file in _loaded if file not in wanted]:
        _forget(file)
        del _loaded[file]
    load(paths)


def code(files: Iterable[Path]) -> dict[str, str]:
    """Returns the hashes of plugin files by their paths, as seen from the current directory."""
    return {os.path.relpath(file): code_of_file(file) for file in sorted({file.resolve() for file in files})}


def _forget(file: Path) -> None:
    for kind in registry.ALL:
        kind.forget(file)


def _code(file: Path, shown: str) -> str:
    try:
        return code_of_file(file)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"plugins: {shown}: cannot be read as Python ({error}); name a .py file") from None


def _import(file: Path, shown: str) -> None:
    # Named after its place: two plugins may have the same file name, and pickled objects must find theirs again.
    name = f"xkd_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"plugins: {shown}: name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"plugins: {shown}: {type(error).__name__}: {error}") from error
