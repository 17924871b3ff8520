"""Stage `show`: one media file as trained encoders see it, as an image and a short video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xkd.data import encode
from xkd.data.workers import Failure, run_guarded, seconds_allowed
from xkd.errors import UserError
from xkd.files import check_output, files_in, replacing
from xkd.modalities.audio import Audio
from xkd.progress import say, track
from xkd.report import style
from xkd.show import drawing
from xkd.show.looks import look
from xkd.show.models import Models, gather
from xkd.show.moment import Moment, read_moment


def run(
    clip: Path,
    encoders: tuple[Path, ...],
    out: Path | None,
    video: bool,
    start: float | None,
    seed: int,
    force: bool = False,
) -> None:
    """Writes a PNG: what enters the networks, what is hidden of it, what is filled in, and what is looked at.

    Args:
        clip: media file with video, audio or both.
        encoders: folders of encoders, or of a run.
        out: the PNG; by default show-<name of the clip>.png in the working folder.
        video: also write an MP4 beside it, with the audio.
        start: seconds at which the view begins; None: the middle of the file.
        seed: decides which patches are hidden.
        force: files of these names may be replaced; the clip and the encoders' files never are.

    Raises:
        UserError: no such file, nothing readable in it, or no encoders. Whatever else is missing is said in one line.
    """
    out = out or Path(f"show-{clip.stem}.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: a PNG is written; give a name that ends in .png")
    if not clip.is_file():
        raise UserError(f"{clip}: no such file" if not clip.is_dir() else f"{clip}: a folder; give one media file")
    inputs = [clip, *(file for folder in encoders for file in files_in(folder))]
    for path in (out, out.with_suffix(".mp4"))[: 1 + video]:
        check_output(path, inputs, force)
    models = gather(encoders)
    (result,) = run_guarded(read_moment, [(str(clip), models.windows(), start)], seconds_allowed)
    if not isinstance(result, Moment):
        raise UserError(f"{clip}: {result.reason if isinstance(result, Failure) else result}")
    looks, missing = look(models, result, seed)
    notes = [*result.notes, *missing]
    seconds = max(one.seconds for one in looks.values())
    title = (
        f"{clip.name}, {result.start:.2f} to {result.start + seconds:.2f} s of {result.seconds:.2f} s, by {models.name}"
    )
    with replacing(out) as path:
        style.save_figure(drawing.sheet(looks, title, notes, result.start), path)
    for note in notes:
        say(f"{clip.name}: {note}")
    print(out)
    if video:
        path = out.with_suffix(".mp4")
        _write_video(path, *drawing.moving(looks, title), models, result)
        print(path)


def _write_video(
    path: Path, count: int, draw: Callable[[int], np.ndarray], fps: float, models: Models, moment: Moment
) -> None:
    samples = moment.clips.get(Audio.name)
    rate = round(models.windows()[Audio.name].rate) if samples is not None else 0
    height, width = draw(0).shape[:2]
    frames = (draw(number) for number in track(range(count), "frames"))
    encode.write_clip(path, frames, fps, (width, height), samples, rate)
