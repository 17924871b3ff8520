"""Calls a stage for the command line, and prints with --verbose how long it took and which files it wrote."""

from __future__ import annotations

import gc
import importlib
import time
from pathlib import Path
from typing import Any

from xkd import progress, torch_fit
from xkd.errors import UserError

CLOCK_TICK = 0.02  # seconds by which the clock of files lags
LISTED_FILES = 12


def call_with_settings(stage: str, settings: Path, **arguments: Any) -> Any:
    """Calls a stage that takes settings, and returns what it returns.

    Args:
        stage: name of a module of `xkd.stages`.
        settings: path of the settings file.
        arguments: the stage's other arguments.

    Raises:
        UserError: the settings are not valid, or the output would replace them.
    """
    from xkd import params

    out = arguments.get("out")
    if out and out.exists() and settings.exists() and out.samefile(settings):
        raise UserError(f"--out {out}: is the settings file, which is never replaced; give another name")
    return call_stage(stage, params=params.load(settings), **arguments)


def call_stage(stage: str, **arguments: Any) -> Any:
    """Imports a stage and calls it, and returns what it returns.

    Raises:
        UserError: torch, torchvision and torchaudio do not fit together.
    """
    began, started = time.time(), time.perf_counter()
    try:
        run = importlib.import_module(f"xkd.stages.{stage}").run
        loaded = time.perf_counter()
        if not gc.isenabled():  # `xkd.cli.main` switched it off until now
            gc.freeze()
            gc.enable()
        returned = run(**arguments)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        problem = torch_fit.explain()
        if problem:
            raise UserError(problem) from error
        raise
    progress.detail(f"{stage}: {loaded - started:.1f} s to load, {time.perf_counter() - loaded:.1f} s to run")
    for out in filter(None, (arguments.get("out"), arguments.get("output"))):
        _list_written(out, began)
    return returned


def _list_written(out: Path, since: float) -> None:
    files = out.rglob("*") if out.is_dir() else [out]
    written = sorted(path for path in files if path.is_file() and path.stat().st_mtime >= since - CLOCK_TICK)
    for path in written[:LISTED_FILES]:
        progress.detail(f"wrote {path} ({path.stat().st_size:,} bytes)")
    if len(written) > LISTED_FILES:
        progress.detail(f"wrote {len(written) - LISTED_FILES} more files in {out}")
