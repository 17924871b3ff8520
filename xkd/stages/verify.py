"""Stage `verify`: compares every file with the hash or sum that was recorded when it was written; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from xkd import made, runs
from xkd.data import manifest, packed, shards
from xkd.data.packed import Pack
from xkd.data.shards import Shards
from xkd.downstream import store
from xkd.encoders.folder import WEIGHTS
from xkd.errors import UserError
from xkd.files import check_output, files_in, read_json, sha256, write_json
from xkd.params import dataset_of, datasets_in_use
from xkd.progress import track
from xkd.runs import evaluations
from xkd.settings import Params
from xkd.training import checkpoint

DAMAGED, UNCHECKED = 3, 2
CHANGED, MISSING = "not as xkd wrote it", "missing"


@dataclass(frozen=True)
class Checked:
    """A file that was compared with what is recorded about it.

    Attributes:
        problem: what is wrong; empty if nothing is.
        mend: what to do then.
        read: whether it could be checked.
    """

    path: str
    problem: str = ""
    mend: str = ""
    read: bool = True

    def __str__(self) -> str:
        return "; ".join(filter(None, (f"{self.path}: {self.problem}", self.mend)))


def run(params: Params | None = None, what: Sequence[str] = (), out: Path | None = None, force: bool = False) -> int:
    """Checks files, prints a line for each that is damaged or missing and one for all; returns the exit code.

    Args:
        params: what is checked if `what` names nothing: all that was made for these settings.
        what: folders or files, or names of prepared data sets.
        out: JSON file to write the same into.
        force: `out` may be replaced.

    Returns:
        0: all are as they were written; `DAMAGED`: some are not; `UNCHECKED`: some could not be read.

    Raises:
        UserError: no such place, or nothing in it that has a record.
    """
    places = [_place(name) for name in what] if what else _made_for(params) if params else []
    files = sorted({path for place in places for path in (files_in(place) if place.is_dir() else [place])})
    if out:
        check_output(out, files, force)
    jobs = [(path, check) for path in files if (check := _check_of(path))]
    found = [one for path, check in track(jobs, "verify", len(jobs)) for one in _guarded(path, check)]
    if not found:
        raise UserError(f"{', '.join(map(str, places)) or 'verify'}: nothing there that xkd has recorded hashes of")
    wrong = [one for one in found if one.problem]
    verdict = f"{len(found)} files checked: " + (
        f"{len(wrong)} not as written" if wrong else "all as they were written"
    )
    print("\n".join([*map(str, wrong), verdict]))
    if out:
        write_json(out, {"checked": len(found), "faults": [asdict(one) for one in wrong], "verdict": verdict})
    return DAMAGED if any(one.read for one in wrong) else UNCHECKED if wrong else 0


def _place(name: str) -> Path:
    for place in (Path(name), Path("data") / name):
        if place.exists():
            return place
    raise UserError(f"{name}: no such file or folder, and no prepared data set (data/{name} is not there)")


def _made_for(params: Params) -> list[Path]:
    """Returns the folders of all that the settings name, as far as it has been made."""
    trained = {ablation: dataset_of(params, ablation) for ablation in params.ablations}
    places = [Path("data") / name for name in datasets_in_use(params)]
    for ablation, dataset in trained.items():
        for seed in params.seeds:
            name = runs.name_of(dataset, ablation, seed)
            places += [folder / name for folder in (runs.RUNS, runs.CHECKPOINTS, runs.FEATURES)]
            places.append(evaluations.folder_of(params.dataset, ablation, seed))
    found = [place for place in (*places, Path(params.results)) if place.is_dir()]
    if not found:
        raise UserError("nothing was made for these settings yet: no data, runs, evaluations or results here")
    return found


Check = Callable[[Path], Iterable[Checked]]


def _check_of(path: Path) -> Check | None:
    """Returns what checks the files that a file is a record of; None if it is no record."""
    return next((check for pattern, check in _CHECKS.items() if fnmatch(str(path.absolute()), pattern)), None)


def _guarded(path: Path, check: Check) -> Iterator[Checked]:
    try:
        yield from check(path)
    except OSError as error:
        name = str(error.filename or path)
        yield Checked(name, f"cannot be read ({error.strerror})", "not checked", read=False)


def _compared(path: Path, known: Iterable[str], mend: str) -> Checked:
    """Compares a file with the first digits of one or several SHA-256."""
    if not path.is_file():
        return Checked(str(path), MISSING, mend)
    return Checked(str(path), "" if sha256(path).startswith(tuple(known)) else CHANGED, mend)


def _refused(path: Path, error: UserError) -> Checked:
    """Returns what a reader says about a file, which includes what to do."""
    return Checked(str(path), str(error).removeprefix(f"{path}: ").removeprefix(f"{path.parent}: "))


def _journal(path: Path) -> Iterator[Checked]:
    """Compares what a stage wrote and did not remove; clips are left to their manifest, runs to their index."""
    verb = path.stem.removeprefix(".xkd-")
    if verb == "pretrain":
        return
    for name, known in sorted(made.contents(path).items()):
        if (path.parent / name).is_file() and not (verb == "prepare" and name.startswith("clips/")):
            yield _compared(path.parent / name, known, f"run `xkd {verb}` again")


def _clips(path: Path) -> Iterator[Checked]:
    """Compares the clips of a manifest, which may be absent where shards or packed arrays stand for them."""
    again = "run `xkd prepare` again"
    try:
        found = manifest.read_manifest(path, beside=False)
        manifest.check_as_prepared(path, found.hash)
    except UserError as error:
        yield _refused(path, error)
        return
    held = any((path.parent / name).exists() for name in (f"{shards.FOLDER}/{shards.INDEX}", f"packed/{packed.INDEX}"))
    for name, digest in zip(found.rows["path"], found.rows["digest"], strict=True):
        clip = path.parent / name
        if digest and (clip.is_file() or not held):
            yield _compared(clip, [digest], again)


def _packed(path: Path) -> Iterator[Checked]:
    again = "run `xkd prepare` again"
    try:
        pack = Pack(path.parent)
    except UserError as error:
        yield _refused(path, error)
    else:
        yield from (Checked(str(file), "" if whole else CHANGED, again) for file, whole in pack.check().items())


def _shards(path: Path) -> Iterator[Checked]:
    again = "run `xkd pack` again"
    try:
        held = Shards(path.parent)
    except UserError as error:
        yield _refused(path, error)
        return
    for number, name in enumerate(held.names):
        there = (path.parent / name).is_file()
        problem = MISSING if not there else "" if held.check(number) else CHANGED
        yield Checked(str(path.parent / name), problem, again)


def _run(path: Path) -> Iterator[Checked]:
    run = path.parent
    for name, problem in runs.compared(run):
        yield Checked(str(run / name), problem, f"make it with: xkd pretrain ... --out {run}")


def _encoder(path: Path) -> Iterator[Checked]:
    """Compares the weights of an encoder that stands for itself; those of a run are in its index."""
    if not (path.parent / WEIGHTS).exists() or runs.is_run(path.absolute().parents[2]):
        return
    again = "copy the encoder's folder again"
    try:
        known = read_json(path).get("sha256")
    except ValueError as error:
        yield Checked(str(path), str(error), again)
        return
    if not known:
        yield Checked(str(path), "has no SHA-256 of the weights", "save the encoder with this version", read=False)
    for name, digest in (known or {}).items():
        yield _compared(path.parent / name, [digest], again)


def _json(path: Path) -> Iterator[Checked]:
    """Compares a sealed file with its seal, and those that an evaluation was written with."""
    again = f"make it with: xkd evaluate ... --out {path}" if runs.RUNS not in path.parents else "see the run"
    try:
        results = read_json(path)
    except ValueError as error:
        yield Checked(str(path), str(error), again)
        return
    if "protocol" in results and "files" in results:
        yield Checked(str(path))
        for suffix, digest in results["files"].items():
            yield _compared(path.with_suffix(suffix), [digest], again)


def _features(path: Path) -> Iterator[Checked]:
    again = "the next `xkd evaluate` extracts them again"
    try:
        damaged = store.damaged(path)
    except (ValueError, KeyError) as error:
        damaged = str(error)
    yield Checked(str(path), damaged, again)


def _checkpoint(path: Path) -> Iterator[Checked]:
    try:
        checkpoint.content(path)
        yield Checked(str(path))
    except ValueError as error:
        yield Checked(str(path), f"damaged ({error})", "the same command goes on from the one before, or anew")


_CHECKS: dict[str, Check] = {
    "*/.xkd-*.jsonl": _journal,
    f"*/{runs.INDEX}": _run,
    "*/manifest.csv": _clips,
    f"*/packed/{packed.INDEX}": _packed,
    f"*/{shards.FOLDER}/{shards.INDEX}": _shards,
    f"*{store.SUMS}": _features,
    f"*/{checkpoint.NEWEST}": _checkpoint,
    f"*/{checkpoint.PREVIOUS}": _checkpoint,
    "*/config.json": _encoder,
    "*.json": _json,
}
