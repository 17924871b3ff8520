"""Returns the versions of this code and of the libraries that results depend on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from xkd import __version__

LIBRARIES = ("torch", "torchvision", "torchaudio", "numpy", "scikit-learn", "av")
CODE_FOLDER = Path(__file__).parent


def versions() -> dict[str, str | None]:
    """Returns the versions of xkd, its git revision, Python, the platform and `LIBRARIES`."""
    return {
        "xkd": __version__,
        "git": git_revision(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in LIBRARIES},
    }


def git_revision(folder: Path = CODE_FOLDER) -> str | None:
    """Returns the full commit hash of the checkout that contains `folder`, with "-dirty" added if tracked files differ.

    Returns None if the code is not in a checkout: an installed package, also inside the checkout of another project.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
