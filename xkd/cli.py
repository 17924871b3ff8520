"""Defines one verb per stage: its arguments and its help.

Stages are imported when their verb runs, so that `--help` answers at once. Exit codes: 0 done, 1 a defect, 2 something
the user can mend (one line says what), 3 something was found: verdicts that differ from those on record
(`table --strict`), clips that do not fit (`doctor`); 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import click

from xkd import __version__, invocation, launcher, options, progress
from xkd.command import SHELLS, Contents, Dimensions, completion_of, epilog_of, names_of
from xkd.failures import fail


@click.group(
    cls=Contents,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog_of(
        "make table                  every stage in order, for each row of params.yaml",
        "xkd VERB --help             what a verb does, its options and examples",
        "xkd inspect talking_digits  counts and a contact sheet of a data set",
    ),
)
@click.version_option(__version__, prog_name="xkd")
def cli() -> None:
    """XKD: self-supervised audio-visual pretraining, evaluated ablation by ablation."""


@cli.verb("xkd download --dataset talking_digits --out data/talking_digits/raw")
@options.params
@options.entry_of("datasets", "--dataset")
@click.option("--out", type=options.PATH, required=True, help="Folder for index.csv and the media files.")
def download_command(settings: Path, **arguments: Any) -> None:
    """Fetch or generate the raw files of a data set."""
    invocation.call_with_settings("download", settings, **arguments)


@cli.verb("xkd prepare --raw data/talking_digits/raw/index.csv --out data/talking_digits")
@options.params
@click.option("--raw", type=options.PATH, required=True, help="index.csv that `download` wrote.")
@click.option("--out", type=options.PATH, required=True, help="Folder for manifest.csv, summary.json and the clips.")
def prepare_command(settings: Path, **arguments: Any) -> None:
    """Turn raw files into training-ready clips.

    Probes and decodes every file, and writes the manifest: one row per clip, with a reason if it is unusable.
    """
    invocation.call_with_settings("prepare", settings, **arguments)


@cli.verb("xkd pack talking_digits", "xkd pack talking_digits --check")
@click.argument("dataset", shell_complete=names_of("datasets"))
@options.params
@click.option("--check", is_flag=True, help="Compare packed clips with their checksums instead.")
def pack_command(settings: Path, **arguments: Any) -> None:
    """Pack prepared clips into shards.

    Large files, which a network file system reads faster; training then reads them instead of single files.
    """
    invocation.call_with_settings("pack", settings, **arguments)


@cli.verb("xkd inspect talking_digits", "xkd inspect talking_digits --clips 20 --out pictures")
@click.argument("dataset", shell_complete=names_of("datasets"))
@options.params
@click.option("--out", type=options.PATH, help="Folder for the images.  [default: data/DATASET/inspect]")
@click.option("--clips", type=options.FROM_ONE, default=10, show_default=True, help="Rows of the contact sheet.")
def inspect_command(settings: Path, **arguments: Any) -> None:
    """Show what a prepared data set holds.

    Prints counts and faults; draws a contact sheet and histograms.
    """
    invocation.call_with_settings("inspect", settings, **arguments)


@cli.verb(
    "xkd doctor talking_digits",
    "xkd doctor my_clips --json doctor.json",
    "xkd doctor my_clips --encoder runs/talking_digits/xkd/seed0/encoders/audio_student",
)
@click.argument("source", metavar="MEDIA_OR_DATASET", shell_complete=names_of("datasets"))
@options.params
@click.option("--encoder", type=options.PATH, help="Folder of an encoder that the clips are for, not the settings.")
@click.option("--json", "out", type=options.PATH, help="JSON file of facts and findings.")
@options.force
@click.pass_context
def doctor_command(context: click.Context, /, settings: Path, **arguments: Any) -> None:
    """Find what is wrong with clips before training.

    MEDIA_OR_DATASET is a media file, a folder of them, a CSV file with a column path, a manifest, or the name of a
    prepared data set. Prints what is in the clips and a line for each finding; exits with 3 if there is one.
    """
    if arguments["encoder"]:
        found = invocation.call_stage("doctor", **arguments)
    else:
        found = invocation.call_with_settings("doctor", settings, **arguments)
    if found:
        context.exit(3)


@cli.verb("xkd plan", "XKD_PARAMS=workflow/presets/paper.yaml xkd plan --ablation xkd_mas --gpus 8")
@options.params
@click.option("--ablation", help="Entry of `ablations` to show in detail.  [default: xkd, or the first]")
@click.option("--peak-tflops", type=options.POSITIVE, default=312, show_default=True, help=options.PEAK)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.4,
    show_default=True,
    help="Share of the peak that jobs achieve.",
)
@click.option("--gpus", type=options.FROM_ONE, help="GPUs that share pretraining, if not those of the settings.")
@click.option("--gpu-memory-gb", type=options.POSITIVE, help=f"Memory of one GPU.{options.OF_GPU}")
@click.option("--float32-tflops", type=options.POSITIVE, help=f"Peak of one GPU in float32.{options.OF_GPU}")
@click.option(
    "--loader-rate",
    type=options.POSITIVE,
    help="Clips/s that one core prepares for pretraining, as you measured it.  [default: by benchmarks.loader_paper]",
)
@click.option("--clips", type=options.FROM_ONE, help="Training clips, if not those of the manifest or catalogue.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: bytes, operations and hours, not rounded.")
def plan_command(settings: Path, **arguments: Any) -> None:
    """Estimate what the settings will take.

    Parameters, FLOPs, memory, storage and hours, before anything runs. Warns about jobs that starve, exceed memory or
    do not fit their time limit.
    """
    invocation.call_with_settings("plan", settings, **arguments)


@cli.verb(
    "xkd pretrain --manifest data/talking_digits/manifest.csv \\",
    "  --ablation xkd --seed 3 --out runs/talking_digits/xkd/seed3",
)
@options.params
@options.manifest
@options.entry_of("ablations", "--ablation")
@click.option("--seed", type=options.SEED, required=True, help="Seed of weights, views and masks.")
@click.option(
    "--out", type=options.PATH, required=True, help="Folder for weights, effective settings, metrics and curves."
)
@options.resume
def pretrain_command(settings: Path, **arguments: Any) -> None:
    """Train one ablation with one seed.

    An interrupted run continues from its last checkpoint. Several GPUs: torchrun --nproc-per-node 8 -m xkd pretrain ...
    """
    invocation.call_with_settings("pretrain", settings, **arguments)


@cli.verb(
    "xkd features --manifest data/talking_digits/manifest.csv \\",
    "  --run runs/talking_digits/xkd/seed0 --task linear --out features.json",
)
@options.params
@options.manifest
@options.run
@options.entry_of("tasks", "--task")
@click.option("--out", type=options.PATH, required=True, help="JSON file that says where the features are.")
@options.force
def features_command(settings: Path, **arguments: Any) -> None:
    """Extract the frozen features that a task needs.

    They go to features/, where `evaluate` finds them: a job with a GPU for this, one without for the rest.
    """
    invocation.call_with_settings("features", settings, **arguments)


@cli.verb(
    "xkd evaluate --manifest data/talking_digits/manifest.csv \\",
    "  --run runs/talking_digits/xkd/seed0 --task linear --out linear.json",
)
@options.params
@options.manifest
@options.run
@options.entry_of("tasks", "--task")
@click.option("--out", type=options.PATH, required=True, help="JSON file of results; more files go beside it.")
@options.resume
@options.force
def evaluate_command(settings: Path, **arguments: Any) -> None:
    """Measure a run's encoders on held-out clips.

    An interrupted finetuning continues from its last checkpoint. Several GPUs: torchrun --nproc-per-node 8 -m xkd
    evaluate ...
    """
    invocation.call_with_settings("evaluate", settings, **arguments)


@cli.verb(
    "xkd table --out results",
    "xkd table --out results --strict",
    "XKD_PARAMS=workflow/presets/main_rows.yaml xkd table --out results/main_rows",
)
@options.params
@click.option(
    "--out", type=options.PATH, required=True, help="Folder for table.csv, table.md, report.html and figures."
)
@click.option("--strict", is_flag=True, help="Exit with 3 if a verdict is not the one that the settings record.")
@click.pass_context
def table_command(context: click.Context, settings: Path, out: Path, strict: bool) -> None:
    """Gather all results into the table and its report.

    The settings alone decide which runs and evaluations belong to it.
    """
    changes = invocation.call_with_settings("table", settings, out=out)
    if strict and changes:
        for change in changes:
            click.echo(f"xkd: {change}", err=True)
        context.exit(3)


@cli.verb("xkd import-weights video_teacher.pth.tar audio_teacher.pth.tar --output released")
@click.argument("files", nargs=-1, required=True, type=options.PATH)
@click.option("--output", type=options.PATH, required=True, help="Folder that gets one folder per file.")
@click.option("--heads", type=options.FROM_ONE, help="Attention heads; by default one per 64 of the width.")
@click.option("--patch", type=Dimensions(), help="Patch, if not the released 4x16x16 (video) or 4x16 (audio).")
@click.option("--view", type=Dimensions(), help="View trained on, if not the released 32x112x112 or 80x448.")
def import_weights_command(**arguments: Any) -> None:
    """Turn released weights (.pth.tar) into encoder folders."""
    invocation.call_stage("import_weights", **arguments)


@cli.verb(
    "xkd embed runs/talking_digits/xkd/seed0/encoders/video_student data/talking_digits/raw/clips \\",
    "  --output video.parquet",
    "xkd embed runs/talking_digits/xkd/seed0/encoders/audio_student one.wav two.mp4 --output audio.parquet",
)
@click.argument("encoder", type=options.PATH)
@click.argument("sources", nargs=-1, required=True, type=options.PATH)
@click.option("--output", type=options.PATH, required=True, help="Parquet file: file, start, end, vector.")
@click.option("--batch-size", type=options.FROM_ONE, default=16, show_default=True, help="Clips per batch.")
@options.plugin
@options.force
def embed_command(**arguments: Any) -> None:
    """Compute features of media files.

    SOURCES are media files, folders of them, or CSV files with a column path. Each file is cut into clips.
    """
    invocation.call_stage("embed", **arguments)


@cli.verb(
    "xkd export runs/talking_digits/xkd/seed0/encoders/audio_student --output audio.onnx",
    "xkd export released/video_teacher --format torch_export --output video.pt2",
)
@click.argument("encoder", type=options.PATH)
@click.option("--output", type=options.PATH, required=True, help="File to write.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "torch_export"]),
    default="onnx",
    show_default=True,
    help="ONNX, or a program of torch.export.",
)
@options.plugin
@options.force
def export_command(**arguments: Any) -> None:
    """Write an encoder as an ONNX or torch.export file.

    One graph from frames or samples to features, for batches of any size and clips of any length. It is compared with
    the encoder on random clips, and kept only if no feature differs by more than 1e-5.
    """
    invocation.call_stage("export", **arguments)


@cli.verb(
    "xkd show data/talking_digits/raw/clips/test-00000.mov --encoder runs/talking_digits/xkd/seed0",
    "xkd show my.mp4 --encoder runs/talking_digits/xkd/seed0/encoders/video_student --start 2.5",
    "xkd show my.mp4 --encoder released/video_teacher --encoder released/audio_teacher --video",
)
@click.argument("clip", type=options.PATH)
@click.option(
    "--encoder",
    "encoders",
    type=options.PATH,
    multiple=True,
    required=True,
    help="Folder of an encoder, or of a run: then all its encoders. May be given several times.",
)
@click.option("--out", type=options.PATH, help="PNG file to write.  [default: show-CLIP.png]")
@click.option("--video", is_flag=True, help="Also write an MP4 beside the PNG, with audio.")
@click.option("--start", type=click.FloatRange(min=0), help="Second at which the view begins.  [default: the middle]")
@click.option("--seed", type=options.SEED, default=0, show_default=True, help="Seed that chooses the masked patches.")
@options.plugin
@options.force
def show_command(**arguments: Any) -> None:
    """Draw one media file as a model sees it.

    Frames and log-mel, the masked patches and their reconstruction, and the refinement weights of each modality.
    """
    invocation.call_stage("show", **arguments)


@cli.verb("xkd ui", "xkd ui --port 5001")
@click.option("--port", type=click.IntRange(1, 65534), default=5000, show_default=True, help="Port on this machine.")
def ui_command(port: int) -> None:
    """Browse every run in MLflow.

    Prints the link to the table of runs, grouped by ablation.
    """
    invocation.call_stage("ui", port=port)


@cli.verb("xkd sync")
def sync_command() -> None:
    """Send MLflow what it missed.

    Entries wait in mlflow-unsent/ while a job is young or MLflow does not answer (docs/mlflow.md).
    """
    invocation.call_stage("sync")


@cli.verb("xkd schema --out workflow/schemas/params.schema.json")
@click.option("--out", type=options.PATH, help="File to write instead of standard output.")
@options.force
def schema_command(out: Path | None, force: bool) -> None:
    """Print the JSON schema of the settings.

    Each key with its meaning, type and bounds.
    """
    invocation.call_stage("schema", out=out, force=force)


@cli.verb('eval "$(xkd completion bash)"', "xkd completion fish > ~/.config/fish/completions/xkd.fish")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion_command(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script of shell completion.

    It completes verbs, options and files, and the names of data sets, ablations and tasks.
    """
    click.echo(completion_of(cli, shell))


def main() -> None:
    """Runs a verb and turns failures into exit codes."""
    # SIGTERM unwinds the stack as an exception would: MLflow runs are closed, temporary files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    launcher.end_with_torchrun()
    # Collecting garbage again and again among the objects of imported modules, which stay, takes a second of each job.
    gc.disable()
    atexit.register(gc.freeze)
    progress.set_level("normal")
    try:
        sys.exit(cli.main(prog_name="xkd", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("xkd: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `xkd schema | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 (anything else is a defect, and reported as one)
        fail(error)
