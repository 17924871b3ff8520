"""What a stage's code is, as a short hash: engines rerun a stage when it changes.

The hash covers the syntax tree of every module of this package that the stage imports, directly or through others,
and the data files of their folders (templates, tables). Comments, docstrings and layout do not count. Imports by a
computed name, and versions of libraries, are not seen.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# These, and the modules in them, watch a stage and cannot change its results.
WATCHERS = {"xkd.fingerprint", "xkd.progress", "xkd.tracking"}


def stage(name: str) -> str:
    """Hash of the code that `xkd.stages.<name>` can reach.

    Raises:
        ValueError: there is no such stage.
    """
    return module(f"xkd.stages.{name}")


@cache
def module(first: str) -> str:
    """Hash of the code that a module can reach.

    Raises:
        ValueError: there is no such module.
    """
    modules = _reachable(first)
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(f"{module}\n{_tree(_source(module))}\n".encode())
    for path in sorted({path for module in modules for path in _data_files(_source(module).parent)}):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _reachable(first: str) -> set[str]:
    found, pending = set(), [first]
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            pending += _imports(module)
    return found


def _imports(module: str) -> Iterator[str]:
    """Modules of this package that `module` names in an import, and the packages they lie in."""
    path = _source(module)
    parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*parts[: len(parts) + 1 - node.level], *filter(None, [node.module])])
            origin = base if node.level else node.module
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from _modules_along(name)


def _modules_along(name: str) -> Iterator[str]:
    """`xkd.a.b` executes xkd.a, then xkd.a.b; the last part may be a name inside a module. `xkd` itself holds no code."""
    parts = name.split(".")
    if parts[0] == PACKAGE.name:
        for end in range(2, len(parts) + 1):
            module = ".".join(parts[:end])
            if module in WATCHERS:
                return
            if _file(module):
                yield module


def _source(module: str) -> Path:
    path = _file(module)
    if path is None:
        raise ValueError(f"no module {module}")
    return path


def _file(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    candidates = path.with_suffix(".py"), path / "__init__.py"
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _data_files(folder: Path) -> Iterator[Path]:
    if folder != PACKAGE:
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                yield path


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _tree(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Expr(ast.Constant(value=""))
    return ast.dump(tree)
