"""Fetches archives, verified before they get their name."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from xkd.data.synthetic.recordings import Archive
from xkd.errors import UserError
from xkd.made import Made
from xkd.progress import track

SPOKEN_DIGITS_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
SPOKEN_DIGITS_VARIABLE = "XKD_SPOKEN_DIGITS_ARCHIVE"
BLOCK = 1 << 18
TIMEOUT_SECONDS = 30


def spoken_digits_archive(source: str | None, files: Made) -> Path:
    """A verified copy of the Free Spoken Digit Dataset: the user's own, or fetched into archive/ of `files` once.

    Args:
        source: local zip from the settings; without it the environment variable, then the network.

    Raises:
        UserError: the local copy is absent or not the data set, or there is no network.
    """
    own = source or os.environ.get(SPOKEN_DIGITS_VARIABLE)
    path = Path(own) if own else files.folder / "archive" / "free-spoken-digit-dataset-master.zip"
    if not own and not path.exists():
        with files.writing(path) as temporary:
            _fetch(SPOKEN_DIGITS_URL, temporary)
            Archive(temporary)
    Archive(path)
    return path.resolve()


def _fetch(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            blocks = iter(lambda: answer.read(BLOCK), b"")
            for block in track(blocks, "download", total=-(-size // BLOCK) or None):
                file.write(block)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url}: cannot be fetched ({reason}); fetch it elsewhere and give its path as datasets.<name>.source "
            f"or in the environment variable {SPOKEN_DIGITS_VARIABLE}"
        ) from None
