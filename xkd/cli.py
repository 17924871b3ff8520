"""One verb per stage: argument parsing and exit codes, nothing else.

Stages are imported when their verb runs, so that `--help` answers at once. Exit codes: 0 done, 2 something the user
can mend (one line says what), 130 interrupted, 1 a defect (with its traceback).
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path

import click

from xkd import __version__
from xkd.errors import UserError

PATH = click.Path(path_type=Path)
EPILOG = "Settings come from params.yaml; `make table` runs every stage in order. Each verb has its own --help."


class InOrder(click.Group):
    """Lists verbs in the order they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _params_option(command):
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


def _manifest_option(command):
    return click.option(
        "--manifest", type=PATH, required=True, help="manifest.csv that `prepare` wrote: one row per clip."
    )(command)


@click.group(cls=InOrder, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xkd")
def cli() -> None:
    """XKD: self-supervised audio-visual pretraining, evaluated ablation by ablation."""


@cli.command()
@_params_option
@click.option("--dataset", required=True, help="Name of an entry of `datasets` in the settings.")
@click.option("--out", type=PATH, required=True, help="Folder for index.csv and the media files.")
def download(settings: Path, dataset: str, out: Path) -> None:
    """Fetch or generate the raw media files of a data set."""
    _run("download", settings, dataset=dataset, out=out)


@cli.command()
@_params_option
@click.option("--raw", type=PATH, required=True, help="index.csv that `download` wrote.")
@click.option("--out", type=PATH, required=True, help="Folder for manifest.csv, summary.json and the clips.")
def prepare(settings: Path, raw: Path, out: Path) -> None:
    """Probe and decode every raw file; write training-ready clips and their manifest."""
    _run("prepare", settings, raw=raw, out=out)


@cli.command()
@click.argument("dataset")
@_params_option
@click.option("--out", type=PATH, help="Folder for the pictures.  [default: data/DATASET/inspect]")
@click.option("--clips", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of the contact sheet.")
def inspect(dataset: str, settings: Path, out: Path | None, clips: int) -> None:
    """Show what a prepared data set holds: counts, faults, a contact sheet, histograms."""
    _run("inspect", settings, dataset=dataset, out=out, clips=clips)


@cli.command()
@_params_option
@_manifest_option
@click.option("--ablation", required=True, help="Name of an entry of `ablations` in the settings.")
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Seed of weights, views and masks.")
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
    """Train one ablation with one seed. Interrupted, it continues from its last checkpoint.

    On several GPUs: torchrun --nproc-per-node 8 -m xkd pretrain ...
    """
    _run("pretrain", settings, manifest=manifest, ablation=ablation, seed=seed, out=out, resume=resume)


@cli.command()
@_params_option
@_manifest_option
@click.option("--run", type=PATH, required=True, help="Folder that `pretrain` wrote.")
@click.option("--task", required=True, help="Name of an entry of `tasks` in the settings.")
@click.option("--out", type=PATH, required=True, help="JSON file of results; predictions and times go beside it.")
def evaluate(settings: Path, manifest: Path, run: Path, task: str, out: Path) -> None:
    """Measure a run's encoders on held-out clips."""
    _run("evaluate", settings, manifest=manifest, run=run, task=task, out=out)


@cli.command()
@_params_option
@click.option("--out", type=PATH, required=True, help="Folder for table.csv, table.md, report.html and figures.")
def table(settings: Path, out: Path) -> None:
    """Gather every run and evaluation that the settings ask for into one table."""
    _run("table", settings, out=out)


class Sizes(click.ParamType):
    """Numbers with x between them, e.g. 4x16x16."""

    name = "NxN[xN]"

    def convert(self, value, param, ctx):
        try:
            return value if isinstance(value, tuple) else tuple(int(part) for part in value.split("x"))
        except ValueError:
            self.fail(f"{value} is not of the form 4x16x16", param, ctx)


@cli.command(name="import-weights")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--output", type=PATH, required=True, help="Folder that gets one folder per file.")
@click.option("--heads", type=click.IntRange(min=1), help="Attention heads; by default one per 64 of the width.")
@click.option("--patch", type=Sizes(), help="Patch, if not the released 4x16x16 (video) or 4x16 (audio).")
@click.option("--view", type=Sizes(), help="View trained on, if not the released 32x112x112 or 80x448.")
def import_weights(files: tuple[Path, ...], output: Path, **known) -> None:
    """Turn released weights (.pth.tar) into encoder folders."""
    _call("import_weights", files=files, output=output, **known)


@cli.command()
@click.argument("encoder", type=PATH)
@click.argument("sources", nargs=-1, required=True, type=PATH)
@click.option("--output", type=PATH, required=True, help="Parquet file: file, start, end, vector.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Clips at once.")
def embed(encoder: Path, sources: tuple[Path, ...], output: Path, batch_size: int) -> None:
    """Features of media files, folders of them, or the files of a CSV, clip by clip."""
    _call("embed", encoder=encoder, sources=sources, output=output, batch_size=batch_size)


@cli.command()
@click.option("--out", type=PATH, help="File to write instead of standard output.")
def schema(out: Path | None) -> None:
    """Write the JSON schema of the settings: each key, its meaning, type and bounds."""
    from xkd import params

    text = json.dumps(params.schema(), indent=2) + "\n"
    if out:
        out.write_text(text)
    else:
        click.echo(text, nl=False)


def main() -> None:
    """Entry point: runs a verb and turns what can go wrong into an exit code."""
    # A polite stop unwinds as an exception would: MLflow runs are closed, temporary files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(cli.main(prog_name="xkd", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        _fail(f"{error.format_message()} ({_hint(error)})")
    except UserError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("xkd: interrupted", err=True)
        sys.exit(130)


def _run(stage: str, settings: Path, **arguments) -> None:
    from xkd import params

    _call(stage, params=params.load(settings), **arguments)


def _call(stage: str, **arguments) -> None:
    try:
        importlib.import_module(f"xkd.stages.{stage}").run(**arguments)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        from xkd.torch_fit import explain

        problem = explain()
        if problem:
            raise UserError(problem) from error
        raise


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context else 'xkd'} --help`"


def _fail(message: str) -> None:
    click.echo(f"xkd: error: {' '.join(message.split())}", err=True)
    sys.exit(2)
