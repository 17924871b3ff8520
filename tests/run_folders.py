"""Folders of runs that were put together by hand."""

from pathlib import Path

from xkd import runs
from xkd.files import sha256, write_json


def seal(run: Path) -> None:
    """Lists the files of a run as complete, as `pretrain` does at its end; again after a test has changed one."""
    paths = [path for path in (*map(run.joinpath, runs.FILES), *run.glob("encoders/*/*")) if path.is_file()]
    files = {path.relative_to(run).as_posix(): sha256(path) for path in paths}
    write_json(run / runs.INDEX, {"run": "", "complete": True, "files": files})
