"""Hashes the code of a stage: engines rerun a stage when the hash changes.

The hash covers every module of this package that the stage imports, directly or through others, and the data files
that those modules name. What cannot change a result does not count: comments, layout, docstrings, the descriptions of
settings, type annotations of functions, the texts of errors and of progress. Imports by a computed name, and versions
of libraries, are not seen. What is found in a module is kept beside its compiled form in `__pycache__`, for the next
process.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PACKAGE = Path(__file__).parent
# These, and the modules in them, cannot change a stage's results. They watch it; or they define settings, whose values
# are compared themselves; or they load plugins, which have hashes of their own.
WATCHERS = {
    *("xkd.fingerprint", "xkd.progress", "xkd.spent", "xkd.tracking", "xkd.downstream.monitor"),
    *("xkd.settings", "xkd.rows", "xkd.registry", "xkd.plugins"),
}
ERRORS = {"UserError", "ValueError", "TypeError"}  # not MediaError, whose text becomes a reason in the manifest
# Calls whose texts people read, and no program.
SPOKEN = {"UserError", "say", "detail", "track", "counter", "print", "warn"}


class _Code(NamedTuple):
    """What a module imports (levels above it, dotted name), the texts in it, and a hash of what can change a result."""

    imported: list[tuple[int, str]]
    texts: list[str]
    decisive: str


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
        digest.update(f"{module}\n{_code(_source(module)).decisive}\n".encode())
    for path in sorted(_data_files(modules)):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode() + _content(path))
    return digest.hexdigest()[:16]


def code_of_file(path: Path) -> str:
    """Hash of the code in one file, a plugin's say; what the file imports is not seen.

    Raises:
        OSError, ValueError, SyntaxError: it cannot be read as Python.
    """
    return _hash_of(ast.parse(path.read_bytes()))


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
    for level, name in _code(path).imported:
        origin = ".".join([*parts[: len(parts) + 1 - level], name])
        yield from _modules_along(origin if level else name)


def _modules_along(name: str) -> Iterator[str]:
    """Yields xkd.a and xkd.a.b for `xkd.a.b`; the last part may be a name in a module. `xkd` itself holds no code."""
    parts = name.split(".")
    modules = [".".join(parts[:end]) for end in range(2, len(parts) + 1)] if parts[0] == PACKAGE.name else []
    if not WATCHERS.intersection(modules):
        yield from filter(_file, modules)


def _source(module: str) -> Path:
    path = _file(module)
    if path is None:
        raise ValueError(f"no module {module}")
    return path


def _file(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    candidates = path.with_suffix(".py"), path / "__init__.py"
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _data_files(modules: set[str]) -> Iterator[Path]:
    """Files that the modules name, and those in folders of their packages that hold no code (templates)."""
    packages = {_source(module).parent for module in modules}
    named = {text for module in modules for text in _code(_source(module)).texts}
    for path in PACKAGE.rglob("*"):
        if path.suffix not in (".py", ".pyc") and path.parent.name != "__pycache__" and path.is_file():
            inside = path.parent.parent in packages - {PACKAGE} and not (path.parent / "__init__.py").exists()
            if path.name in named or inside:
                yield path


def _content(path: Path) -> bytes:
    """The bytes of a data file; of YAML the values, so that comments do not count."""
    if path.suffix != ".yaml":
        return path.read_bytes()
    return json.dumps(yaml.safe_load(path.read_bytes()), default=str).encode()


@cache
def _code(path: Path) -> _Code:
    """Returns what was kept of a module, or reads it now: most of the time goes into walking its syntax tree."""
    source = path.read_bytes()
    state = hashlib.sha256(Path(__file__).read_bytes() + source).hexdigest()
    kept = Path(cache_from_source(str(path))).with_suffix(".json")
    with suppress(OSError, ValueError):  # there is none, or another process is writing it
        earlier, *found = json.loads(kept.read_text())
        if earlier == state:
            return _Code(*found)
    code = _read(source)
    if not sys.dont_write_bytecode:
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([state, *code]))
    return code


def _read(source: bytes) -> _Code:
    tree = ast.parse(source)
    imported, texts = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = f"{node.module}." if node.module else ""
            imported += [(node.level, f"{origin}{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    return _Code(imported, sorted(texts), _hash_of(tree))


def _hash_of(tree: ast.Module) -> str:
    """Hash of what can change a result."""
    return hashlib.sha256(ast.dump(_Decisive().visit(tree)).encode()).hexdigest()[:16]


class _Decisive(ast.NodeTransformer):
    """Leaves of a module what can change a result."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self.generic_visit(_without_docstring(node))

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self.generic_visit(_without_docstring(node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(_without_docstring(node))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call) and _called(node.exc) in ERRORS:
            _silence(node.exc)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _called(node) in SPOKEN:
            _silence(node)
        if _called(node) == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)


def _without_docstring(node: Any) -> Any:
    if ast.get_docstring(node, clean=False) is not None:
        node.body[0] = ast.Expr(ast.Constant(value=""))
    return node


def _called(node: ast.Call) -> str | None:
    """Last part of the name of the called function."""
    return getattr(node.func, "id", None) or getattr(node.func, "attr", None)


def _silence(node: ast.Call) -> None:
    """Empties the texts that the call gets as arguments."""
    node.args = [ast.Constant(value="") if _is_text(value) else value for value in node.args]


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))
