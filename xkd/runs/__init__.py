"""The files of runs: where they lie, which belong to a run, and whether they are all there and of one run.

`files.json`, the index, names every file with its SHA-256; all that read a run check it here first. A folder of one
encoder that was copied elsewhere stands for itself. Readers are in `xkd.runs.records`, files of evaluations in
`xkd.runs.evaluations`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from xkd import made
from xkd.errors import UserError
from xkd.files import read_json, sha256, sync, write_json
from xkd.made import Made

RUNS, CHECKPOINTS, FEATURES = Path("runs"), Path("checkpoints"), Path("features")
INDEX, ENCODERS = "files.json", "encoders"
CONFIG, METRICS, TIMES, TRACKING, VERSIONS = "config.json", "metrics.json", "times.json", "mlflow.json", "versions.json"
HISTORY, STEPS = "history.csv", "steps.csv"
SAMPLES, PICTURE, EMBEDDINGS = "samples.npz", "samples.png", "embeddings.npz"
FILES = (CONFIG, METRICS, TIMES, HISTORY, STEPS, SAMPLES, PICTURE, EMBEDDINGS, VERSIONS, TRACKING)
CHANGED = "not the file that this run wrote"
ENCODER_FILE = re.compile(rf"{ENCODERS}/[^/.][^/]*/[^/.][^/]*")
Hashes = dict[str, str]


def name_of(dataset: str, ablation: str, seed: int | str) -> str:
    """Returns the name of a run, which is its path in `RUNS` and in `CHECKPOINTS`, too."""
    return f"{dataset}/{ablation}/seed{seed}"


@dataclass(frozen=True)
class Index:
    """Content of `files.json`: the run's name, its files with their hashes, and whether all are in place."""

    run: str = ""
    files: Hashes = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True)
class RunFolder:
    """A run's folder while this process alone may write there."""

    path: Path
    run: str
    files: Made

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yields a folder for the run's files. At the end they replace the earlier ones, all or none.

        Until then the earlier run is as it was. If the process is killed meanwhile, readers refuse the run.
        """
        folder = self.files.part(self.path / "run")
        folder.mkdir()
        try:
            yield folder
            parts = {part.relative_to(folder).as_posix(): part for part in sorted(folder.rglob("*")) if part.is_file()}
            hashes = {name: sha256(part) for name, part in parts.items()}
            for part in parts.values():
                sync(part)
            self.files.check_free(*map(self.path.joinpath, hashes))
            earlier = _index(self.path).files
            self._write_index(Index(self.run, earlier | hashes))
            for name in earlier.keys() - hashes.keys():
                self.files.remove(self.path / name)
            for name, part in parts.items():
                with self.files.writing(self.path / name) as temporary:
                    shutil.move(part, temporary)  # a rename, unless a subfolder is a link to another disk
            self._write_index(Index(self.run, hashes, complete=True))
            sync(self.path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _write_index(self, index: Index) -> None:
        with self.files.writing(self.path / INDEX) as temporary:
            write_json(temporary, asdict(index), sealed=True)


@contextmanager
def reserved(path: Path, run: str) -> Iterator[RunFolder]:
    """Reserves a folder for a run, so that its files can be written at the end of training.

    Args:
        run: its name.

    Raises:
        UserError: another process writes there, or it holds another run or files that xkd did not make.
    """
    with made.opened(path, "pretrain") as files:
        holds = _index(path).run
        if holds not in ("", run):
            raise UserError(f"{path}: holds the run {holds}; give another --out for {run}, or remove that run first")
        files.check_free(*map(path.joinpath, (*FILES, INDEX)), *(path / ENCODERS).glob("*/*.safetensors"))
        yield RunFolder(path, run, files)


def is_run(folder: Path) -> bool:
    """Returns whether a folder is that of a run, complete or not."""
    return bool(_index(folder).files) or all((folder / name).exists() for name in (CONFIG, METRICS))


def check(run: Path, again: str = "", weights: bool = True) -> Hashes:
    """Returns the files of a complete run, by name, with their hashes.

    Args:
        again: the command that makes the run.
        weights: whether the contents of encoders are compared too, and not only whether they are there.

    Raises:
        UserError: no complete run, or a file is missing or not the one that the run wrote.
    """
    index = _complete(run, again)
    for name, digest in index.files.items():
        _compare(run, name, digest if weights or name in FILES else None, again)
    return index.files


def check_encoder(folder: Path) -> bool:
    """Checks the files of one encoder's folder, and returns true, where that is part of a run; else returns false.

    Raises:
        UserError: as of `check`.
    """
    place = folder.resolve()
    run = place.parent.parent
    if place.parent.name != ENCODERS or not is_run(run):
        return False
    own = {name: h for name, h in _complete(run).files.items() if name.startswith(f"{ENCODERS}/{place.name}/")}
    if not own:
        raise UserError(f"{folder}: no encoder of the run in {run} (its {INDEX} lists none of this name)")
    for name, digest in own.items():
        _compare(run, name, digest)
    return True


def encoder_folders(run: Path) -> list[Path]:
    """Returns the folders of a complete run's encoders, sorted.

    Raises:
        UserError: as of `check`.
    """
    return sorted({(run / name).parent for name in check(run) if name.startswith(f"{ENCODERS}/")})


def encoders_hash(run: Path) -> str:
    """Returns the hash of all encoders that a run's index lists: it tells which weights an evaluation judged."""
    files = _index(run).files
    listed = "".join(f"{name} {files[name]}\n" for name in sorted(files) if name.startswith(f"{ENCODERS}/"))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _index(run: Path) -> Index:
    """Reads the index; an empty one where there is none that xkd wrote."""
    try:
        index = Index(**read_json(run / INDEX))
        known = all(name in FILES or ENCODER_FILE.fullmatch(name) for name in index.files)
        return index if known else Index()
    except (OSError, ValueError, TypeError, AttributeError):
        return Index()


def _complete(run: Path, again: str = "") -> Index:
    path, index = run / INDEX, _index(run)
    if index.complete:
        return index
    if index.files:
        problem = "writing this run was interrupted, and its files may be of two runs"
    elif is_run(run):
        problem = "missing or damaged: the run is incomplete or of an earlier version"
    else:
        problem = "missing: no finished run here"
    raise UserError(f"{path}: {problem}; {_mend(run, again)}")


def compared(run: Path) -> Iterator[tuple[str, str]]:
    """Yields each file of a run, with what is wrong with it, or with nothing."""
    index = _index(run)
    yield INDEX, "" if index.complete else "damaged, or of a run that was not written to its end"
    for name, digest in index.files.items():
        yield name, _problem(run / name, digest)


def _compare(run: Path, name: str, digest: str | None, again: str = "") -> None:
    problem = _problem(run / name, digest)
    if problem:
        see = f" (see {INDEX})" if problem == CHANGED else ""
        raise UserError(f"{run / name}: {problem}{see}; {_mend(run, again)}")


def _problem(path: Path, digest: str | None) -> str:
    """Says what is wrong with a file of a run; empty if nothing is. Without a digest it must only be there."""
    if not path.is_file():
        return "missing"
    about = path.stat()
    if digest and _hash(path.resolve(), about.st_ino, about.st_size, about.st_mtime_ns) != digest:
        return CHANGED
    return ""


def _mend(run: Path, again: str) -> str:
    return f"make it with: {again or f'python -m xkd pretrain ... --out {run}'}"


@cache
def _hash(path: Path, *_unchanged: int) -> str:
    return sha256(path)
