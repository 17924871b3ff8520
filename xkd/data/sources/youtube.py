"""Fetches segments of YouTube videos with yt-dlp: needs `pip install 'xkd[youtube]'`, and ffmpeg on the machine."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xkd.errors import UserError
from xkd.progress import track

ADDRESS = "https://www.youtube.com/watch?v="
SEGMENT_SECONDS = 10.0  # of AudioSet
SMALLEST = "best[height<=360]/best"  # clips are scaled down anyway


def need(title: str) -> None:
    """Checks that yt-dlp and ffmpeg are there.

    Raises:
        UserError: yt-dlp or ffmpeg is missing.
    """
    try:
        import yt_dlp  # noqa: F401
    except ImportError:
        missing = "pip install 'xkd[youtube]' to fetch them"
    else:
        missing = "" if shutil.which("ffmpeg") else "install ffmpeg to fetch them (Debian, Ubuntu: apt install ffmpeg)"
    if missing:
        raise UserError(
            f"datasets.<name>.source: {title} is lists of YouTube segments; give the folder of the clips that you "
            f"have, called <youtube id>_<start in seconds>.mp4, or {missing}"
        )


def fetch_segments(names: Sequence[str], folder: Path) -> None:
    """Fetches the segments that are not in `folder` yet; reports how many could not be fetched, and why.

    Args:
        names: `<youtube id>_<start in seconds>` of each segment.
        folder: gets `<name>.mp4`.
    """
    import yt_dlp

    folder.mkdir(parents=True, exist_ok=True)
    reasons: Counter[str] = Counter()
    for name in track([name for name in names if not (folder / f"{name}.mp4").exists()], "YouTube"):
        video, start = name.rsplit("_", 1)
        part = folder / f".{name}.mp4"
        options = {
            "format": SMALLEST,
            "merge_output_format": "mp4",
            "outtmpl": {"default": str(part)},
            "download_ranges": yt_dlp.utils.download_range_func(None, [(float(start), float(start) + SEGMENT_SECONDS)]),
            "force_keyframes_at_cuts": True,
            "quiet": True,
            "no_warnings": True,
            "noprogress": True,
        }
        try:
            with yt_dlp.YoutubeDL(options) as session:
                session.download([ADDRESS + video])
            part.rename(folder / f"{name}.mp4")
        except (yt_dlp.utils.DownloadError, OSError) as error:
            part.unlink(missing_ok=True)
            reasons[str(error).strip().splitlines()[-1].split(": ")[-1][:80]] += 1
    for reason, count in reasons.most_common(5):
        print(f"xkd: YouTube: {count} segments could not be fetched: {reason}", file=sys.stderr)
