"""Stage `push`: sends an encoder, or those of a run, to the hub or to another folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from xkd import protocols as _ours  # noqa: F401  registers our own
from xkd import registry, runs
from xkd.encoders import parcel
from xkd.encoders.card import Known, Score
from xkd.encoders.config import EncoderConfig
from xkd.encoders.folder import CARD
from xkd.encoders.parcel import Files
from xkd.encoders.sending import Target, deliver, target_of
from xkd.errors import UserError
from xkd.files import read_json
from xkd.progress import say
from xkd.runs import evaluations
from xkd.runs.records import RunMetrics, read_record


def run(
    source: Path,
    target: str,
    evals: Path | None = None,
    private: bool = False,
    send: bool = False,
    force: bool = False,
) -> None:
    """Prints which files would be sent, and the card; sends them only if asked to.

    Cards have the figures of the run's evaluations. The run itself stays as it is. An encoder that is not in a run is
    sent with the card that lies beside it.

    Args:
        source: folder of an encoder, or of a run for all its encoders.
        target: hf://owner/name, or a folder as fsspec names it.
        evals: folder of the run's evaluations; by default evals/DATASET/ROW/seedN.
        private: a repository that is created is private.
        send: send; by default nothing is, and the target is not even asked what it holds.
        force: files of the same names there may be replaced.

    Raises:
        UserError: no encoder, damaged files, evaluations of other encoders or without a run, or errors of the target.
    """
    place = target_of(target, private or None)
    origin = _run_of(source)
    folders = {f"{runs.ENCODERS}/{one.name}": one for one in runs.encoder_folders(source)} if origin == source else {}
    if evals and not origin:
        raise UserError(f"{source}: not in a run, so --evals cannot be compared with it; push it from its run")
    scores = _scores(origin, evals) if origin else ()
    known = partial(_known, place.loads_as, _clips(origin) if origin else "", scores)
    files = parcel.of_encoders(folders or {"": source}, known)
    if not origin and (source / CARD).is_file():
        files[CARD] = (source / CARD).read_bytes()
    if not send:
        _preview(place, files)
        return
    done = deliver(place, files, force)
    if done.address:
        removed = f", {len(done.removed)} removed" if done.removed else ""
        print(f"{len(done.sent)} of {len(files)} files sent to {done.address}{removed}")
    else:
        print(f"{place}: holds all of it already")


def _preview(place: Target, files: Files) -> None:
    print(f"would send {len(files)} files, {sum(map(parcel.size, files.values())):,} bytes, to {place}:")
    for name, content in files.items():
        print(f"{parcel.size(content):>14,}  {name}")
    card = files[CARD]
    print(f"\n{CARD}:\n\n{card.decode() if isinstance(card, bytes) else ''}")
    print("Nothing was sent: add --send to send it")


def _run_of(source: Path) -> Path | None:
    """Returns the run that is the source, or that the source is an encoder of; None for a folder for itself."""
    if runs.is_run(source):
        return source
    return source.resolve().parent.parent if runs.check_encoder(source) else None


def _known(loads_as: str, clips: str, scores: tuple[Score, ...], configs: list[EncoderConfig]) -> Known:
    """Returns what a card of these encoders says: of a single one, figures that are of it alone."""
    about = scores if len(configs) > 1 else tuple(score for score in scores if score.is_about(configs[0]))
    return Known(loads_as, clips, about)


def _clips(run: Path) -> str:
    """Returns what a run was trained on, in numbers."""
    metrics = read_record(run / runs.METRICS, RunMetrics, f"python -m xkd pretrain ... --out {run}")
    return f"{f'{metrics.clips:,} clips, ' if metrics.clips else ''}manifest {metrics.manifest}"


def _scores(run: Path, evals: Path | None) -> tuple[Score, ...]:
    """Reads the figures of all evaluations of a run.

    Raises:
        UserError: an evaluation is damaged or of other encoders, or the folder that was named has none.
    """
    folder = evals or evaluations.EVALUATIONS / read_json(run / runs.INDEX)["run"]
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(evaluations.TIMES)]
    if not paths and evals:
        raise UserError(f"{evals}: no evaluations there")
    if not paths:
        say(f"no evaluations in {folder}: the card has no figures")
    return tuple(score for path in paths for score in _scores_of(path, run))


def _scores_of(path: Path, run: Path) -> list[Score]:
    command = f"python -m xkd evaluate ... --run {run} --task {path.stem} --out {path}"
    record, intervals = evaluations.read_results(path, run, command), read_json(path).get("intervals", {})
    pairs = record.protocol in registry.protocols and registry.protocols[record.protocol].needs_pairs
    about = record.task, record.dataset, record.manifest, record.clips.test
    return [Score(name, *about, value, intervals.get(name), pairs) for name, value in record.metrics.items()]
