"""One verb per stage: argument parsing and exit codes, nothing else.

Stages are imported when their verb runs, so that `--help` answers at once. Exit codes: 0 done, 1 a defect, 2 something
the user can mend (one line says what), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from xkd import __version__, launcher, progress
from xkd.command import DEBUG, Contents, examples, names_of
from xkd.errors import UserError

Function = TypeVar("Function", bound=Callable[..., None])
SEED = click.IntRange(0, 2**32 - 1)
PATH = click.Path(path_type=Path)
SHELLS = {
    "bash": """put  eval "$(xkd completion bash)"  into ~/.bashrc""",
    "zsh": """put  eval "$(xkd completion zsh)"  into ~/.zshrc, after compinit""",
    "fish": "run  xkd completion fish > ~/.config/fish/completions/xkd.fish",
}
MENDABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EEXIST,
}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
LISTED_FILES = 12
PEAK = "Peak TFLOP/s of one GPU in the precision of training, dense (bfloat16: A100 312, H100 989)."


def _params_option(command: Function) -> Function:
    return click.option(
        "--params",
        "settings",
        type=PATH,
        default=Path("params.yaml"),
        envvar="XKD_PARAMS",
        show_default=True,
        show_envvar=True,
        help="Settings file; it may extend another one.",
    )(command)


def _force_option(command: Function) -> Function:
    return click.option("--force", is_flag=True, help="Replace files of these names; an input is never replaced.")(
        command
    )


def _manifest_option(command: Function) -> Function:
    return click.option(
        "--manifest", type=PATH, required=True, help="manifest.csv that `prepare` wrote: one row per clip."
    )(command)


@click.group(
    cls=Contents,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "make table                  every stage in order, for each row of params.yaml",
        "xkd VERB --help             what a verb does, its options and examples",
        "xkd inspect talking_digits  counts and a contact sheet of a data set",
    ),
)
@click.version_option(__version__, prog_name="xkd")
def cli() -> None:
    """XKD: self-supervised audio-visual pretraining, evaluated ablation by ablation."""


@cli.command(
    epilog=examples(
        "xkd download --dataset talking_digits --out data/talking_digits/raw",
    )
)
@_params_option
@click.option(
    "--dataset",
    required=True,
    shell_complete=names_of("datasets"),
    help="Name of an entry of `datasets` in the settings.",
)
@click.option("--out", type=PATH, required=True, help="Folder for index.csv and the media files.")
def download(settings: Path, dataset: str, out: Path) -> None:
    """Fetch or generate the raw files of a data set."""
    _run("download", settings, dataset=dataset, out=out)


@cli.command(
    epilog=examples(
        "xkd prepare --raw data/talking_digits/raw/index.csv --out data/talking_digits",
    )
)
@_params_option
@click.option("--raw", type=PATH, required=True, help="index.csv that `download` wrote.")
@click.option("--out", type=PATH, required=True, help="Folder for manifest.csv, summary.json and the clips.")
def prepare(settings: Path, raw: Path, out: Path) -> None:
    """Turn raw files into training-ready clips.

    Probes and decodes every file, and writes the manifest: one row per clip, with the reason where one is unusable.
    """
    _run("prepare", settings, raw=raw, out=out)


@cli.command(
    epilog=examples(
        "xkd inspect talking_digits",
        "xkd inspect talking_digits --clips 20 --out pictures",
    )
)
@click.argument("dataset", shell_complete=names_of("datasets"))
@_params_option
@click.option("--out", type=PATH, help="Folder for the pictures.  [default: data/DATASET/inspect]")
@click.option("--clips", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of the contact sheet.")
def inspect(dataset: str, settings: Path, out: Path | None, clips: int) -> None:
    """Show what a prepared data set holds.

    Counts and faults in words; a contact sheet and histograms as pictures.
    """
    _run("inspect", settings, dataset=dataset, out=out, clips=clips)


@cli.command(
    epilog=examples(
        "xkd plan",
        "XKD_PARAMS=workflow/presets/paper.yaml xkd plan --ablation xkd_mas --gpus 8",
    )
)
@_params_option
@click.option("--ablation", help="Entry of `ablations` to show in detail.  [default: xkd, or the first]")
@click.option("--peak-tflops", type=click.FloatRange(min=0, min_open=True), default=312, show_default=True, help=PEAK)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.4,
    show_default=True,
    help="Share of the peak that training achieves.",
)
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs that share a run.")
@click.option("--clips", type=click.IntRange(min=1), help="Training clips, if not those of the manifest or catalogue.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: bytes, operations and hours, not rounded.")
def plan(settings: Path, **asked: str | float | bool | None) -> None:
    """Say what the settings will take.

    Parameters, FLOPs, memory, storage and hours, before anything runs.
    """
    _run("plan", settings, **asked)


@cli.command(
    epilog=examples(
        "xkd pretrain --manifest data/talking_digits/manifest.csv \\",
        "  --ablation xkd --seed 3 --out runs/talking_digits/xkd/seed3",
    )
)
@_params_option
@_manifest_option
@click.option(
    "--ablation",
    required=True,
    shell_complete=names_of("ablations"),
    help="Name of an entry of `ablations` in the settings.",
)
@click.option("--seed", type=SEED, required=True, help="Seed of weights, views and masks.")
@click.option("--out", type=PATH, required=True, help="Folder for weights, effective settings, metrics and curves.")
@click.option(
    "--resume",
    type=click.Choice(["same", "changed", "anew"]),
    default="same",
    envvar="XKD_RESUME",
    show_default=True,
    show_envvar=True,
    help="Checkpoint of other settings, data or code: refuse it, go on from it, or put it aside.",
)
def pretrain(settings: Path, manifest: Path, ablation: str, seed: int, out: Path, resume: str) -> None:
    """Train one ablation with one seed.

    An interrupted run continues from its last checkpoint. On several GPUs: torchrun --nproc-per-node 8 -m xkd pretrain ...
    """
    _run("pretrain", settings, manifest=manifest, ablation=ablation, seed=seed, out=out, resume=resume)


@cli.command(
    epilog=examples(
        "xkd evaluate --manifest data/talking_digits/manifest.csv \\",
        "  --run runs/talking_digits/xkd/seed0 --task linear --out linear.json",
    )
)
@_params_option
@_manifest_option
@click.option("--run", type=PATH, required=True, help="Folder that `pretrain` wrote.")
@click.option(
    "--task", required=True, shell_complete=names_of("tasks"), help="Name of an entry of `tasks` in the settings."
)
@click.option("--out", type=PATH, required=True, help="JSON file of results; predictions and times go beside it.")
@_force_option
def evaluate(settings: Path, manifest: Path, run: Path, task: str, out: Path, force: bool) -> None:
    """Measure a run's encoders on held-out clips."""
    _run("evaluate", settings, manifest=manifest, run=run, task=task, out=out, force=force)


@cli.command(
    epilog=examples(
        "xkd table --out results",
        "XKD_PARAMS=workflow/presets/main_rows.yaml xkd table --out results/main_rows",
    )
)
@_params_option
@click.option("--out", type=PATH, required=True, help="Folder for table.csv, table.md, report.html and figures.")
def table(settings: Path, out: Path) -> None:
    """Gather all results into the table and its report.

    Which runs and evaluations belong to it follows from the settings alone.
    """
    _run("table", settings, out=out)


class Sizes(click.ParamType[tuple[int, ...]]):
    """Numbers with x between them, e.g. 4x16x16."""

    name = "NxN[xN]"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(int(part) for part in value.split("x"))
        except ValueError:
            self.fail(f"{value} is not of the form 4x16x16", param, ctx)


@cli.command(
    name="import-weights",
    epilog=examples(
        "xkd import-weights video_teacher.pth.tar audio_teacher.pth.tar --output released",
    ),
)
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--output", type=PATH, required=True, help="Folder that gets one folder per file.")
@click.option("--heads", type=click.IntRange(min=1), help="Attention heads; by default one per 64 of the width.")
@click.option("--patch", type=Sizes(), help="Patch, if not the released 4x16x16 (video) or 4x16 (audio).")
@click.option("--view", type=Sizes(), help="View trained on, if not the released 32x112x112 or 80x448.")
def import_weights(files: tuple[Path, ...], output: Path, **known: int | tuple[int, ...] | None) -> None:
    """Turn released weights (.pth.tar) into encoder folders."""
    _call("import_weights", files=files, output=output, **known)


@cli.command(
    epilog=examples(
        "xkd embed runs/talking_digits/xkd/seed0/encoders/video_student data/talking_digits/raw/clips \\",
        "  --output video.parquet",
        "xkd embed runs/talking_digits/xkd/seed0/encoders/audio_student one.wav two.mp4 --output audio.parquet",
    )
)
@click.argument("encoder", type=PATH)
@click.argument("sources", nargs=-1, required=True, type=PATH)
@click.option("--output", type=PATH, required=True, help="Parquet file: file, start, end, vector.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Clips at once.")
@_force_option
def embed(encoder: Path, sources: tuple[Path, ...], output: Path, **how: int | bool) -> None:
    """Compute features of media files.

    SOURCES are media files, folders of them, or CSV files with a column path. Each is cut into clips.
    """
    _call("embed", encoder=encoder, sources=sources, output=output, **how)


@cli.command(
    epilog=examples(
        "xkd show data/talking_digits/raw/clips/test-00000.mp4 --encoder runs/talking_digits/xkd/seed0",
        "xkd show my.mp4 --encoder runs/talking_digits/xkd/seed0/encoders/video_student --start 2.5",
        "xkd show my.mp4 --encoder released/video_teacher --encoder released/audio_teacher --video",
    )
)
@click.argument("clip", type=PATH)
@click.option(
    "--encoder",
    "encoders",
    type=PATH,
    multiple=True,
    required=True,
    help="Folder of an encoder, or of a run: then all that it holds. May be given several times.",
)
@click.option("--out", type=PATH, help="PNG file to write.  [default: show-CLIP.png]")
@click.option("--video", is_flag=True, help="Also write an MP4 beside the picture, with sound.")
@click.option("--start", type=click.FloatRange(min=0), help="Second at which to begin.  [default: the middle]")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Which patches are hidden.")
@_force_option
def show(clip: Path, encoders: tuple[Path, ...], out: Path | None, **how: float | bool | None) -> None:
    """Draw one media file as a model sees it.

    Frames and log-mel, what is hidden and what the model fills in, and what the refinement of each modality looks at.
    """
    _call("show", clip=clip, encoders=encoders, out=out, **how)


@cli.command(
    epilog=examples(
        "xkd ui",
        "xkd ui --port 5001",
    )
)
@click.option("--port", type=click.IntRange(1, 65534), default=5000, show_default=True, help="Of the loopback address.")
def ui(port: int) -> None:
    """Browse every run in MLflow.

    Prints the link that lands on the table of runs, grouped by ablation.
    """
    _call("ui", port=port)


@cli.command(epilog=examples("xkd sync"))
def sync() -> None:
    """Send MLflow what it missed.

    While MLflow does not answer, what it would have got is kept in mlflow-unsent/.
    """
    _call("sync")


@cli.command(
    epilog=examples(
        "xkd schema --out workflow/schemas/params.schema.json",
    )
)
@click.option("--out", type=PATH, help="File to write instead of standard output.")
@_force_option
def schema(out: Path | None, force: bool) -> None:
    """Print the JSON schema of the settings.

    Each key with its meaning, type and bounds.
    """
    from xkd import files, params

    schema = params.schema()
    if out:
        files.check_output(out, [], force, ours=_is_schema(out))
        files.write_json(out, schema)
    else:
        click.echo(json.dumps(schema, indent=2))


@cli.command(
    epilog=examples('eval "$(xkd completion bash)"', "xkd completion fish > ~/.config/fish/completions/xkd.fish")
)
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script of shell completion.

    It completes verbs, options and files, and the names of data sets, ablations and tasks.
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)(cli, {}, "xkd", "_XKD_COMPLETE")
    click.echo(f"# {SHELLS[shell]}")
    click.echo(script.source_template % script.source_vars())


def main() -> None:
    """Entry point: runs a verb and turns what can go wrong into an exit code."""
    # A polite stop unwinds as an exception would: MLflow runs are closed, temporary files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    launcher.end_with_it()
    progress.set_level("normal")
    try:
        sys.exit(cli.main(prog_name="xkd", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("xkd: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `xkd schema | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 (what is left is a defect, and is said to be one)
        _fail(error)


def _fail(error: Exception) -> None:
    """Says in one line what is wrong and what to do; with --debug the traceback comes first."""
    mendable = _mendable(error)
    debug = os.environ.get(DEBUG, "0")
    with_traceback = debug != "0" and (debug != "defects" or mendable is None)
    with contextlib.suppress(OSError):  # a log on a full disk; the exit code says it all the same
        if with_traceback:
            traceback.print_exception(error)
        click.echo(_last_line(error, mendable, with_traceback), err=True)
    sys.exit(1 if mendable is None else 2)


def _last_line(error: Exception, mendable: str | None, with_traceback: bool) -> str:
    if mendable is None:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        do = "report the lines above" if with_traceback else "run again with --debug and report what it shows"
        return f"xkd: error: this is a defect in xkd: {what}; {do}"
    return f"xkd: error: {' '.join(mendable.split())}"


def _mendable(error: Exception) -> str | None:
    """What the user can do about an error, or None for a defect."""
    if isinstance(error, click.ClickException):
        return f"{error.format_message()} ({_hint(error)})"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename or 'a file'}: {error.strerror}; make room and run the same command again"
    if isinstance(error, OSError) and error.errno in MENDABLE:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({error}); lower training.batch_size, evaluate.batch_size or --batch-size"
    return None


def _is_schema(path: Path) -> bool:
    from xkd import files

    try:
        return bool(files.read_json(path)["title"] == "Params")
    except (OSError, ValueError, KeyError):
        return False


def _run(stage: str, settings: Path, **arguments: Any) -> None:
    from xkd import params

    out = arguments.get("out")
    if out and out.exists() and settings.exists() and out.samefile(settings):
        raise UserError(f"--out {out}: is the settings file, which is never replaced; give another name")
    _call(stage, params=params.load(settings), **arguments)


def _call(stage: str, **arguments: Any) -> None:
    began, started = time.time(), time.perf_counter()
    try:
        run = importlib.import_module(f"xkd.stages.{stage}").run
        loaded = time.perf_counter()
        run(**arguments)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        from xkd.torch_fit import explain

        problem = explain()
        if problem:
            raise UserError(problem) from error
        raise
    progress.detail(f"{stage}: {loaded - started:.1f} s to load, {time.perf_counter() - loaded:.1f} s to run")
    for out in (arguments.get("out"), arguments.get("output")):
        if out:
            _list_written(out, began)


def _list_written(out: Path, since: float) -> None:
    """With --verbose, the files that a stage wrote."""
    files = out.rglob("*") if out.is_dir() else [out]
    written = sorted(path for path in files if path.is_file() and path.stat().st_mtime >= since)
    for path in written[:LISTED_FILES]:
        progress.detail(f"wrote {path} ({path.stat().st_size:,} bytes)")
    if len(written) > LISTED_FILES:
        progress.detail(f"wrote {len(written) - LISTED_FILES} more files in {out}")


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context else 'xkd'} --help`"
