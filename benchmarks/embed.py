"""How far decoding and encoding overlap in `xkd embed`: its wall time, as a ratio to the larger of the two alone.

    python -m benchmarks.embed

Films are synthesised first. In the same run: all files surveyed and decoded by one process, with nothing computed; the
encoder on clips in memory, with one thread; and `xkd embed`, which does both. An ideal overlap gives 1, none gives 2
where both alone take equally long, which `--depth` can bring about.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import click
import numpy as np
import torch

from xkd.data.windows import Cutting
from xkd.encoders import folder, reading
from xkd.encoders.columns import ALONE, Columns
from xkd.encoders.config import EncoderConfig, VideoInput
from xkd.stages import embed

BATCH = 8


@click.command()
@click.option("--files", default=4, show_default=True)
@click.option("--seconds", default=60, show_default=True, help="length of each film")
@click.option("--depth", default=6, show_default=True, help="blocks of the encoder")
@click.option("--size", default="640x360", show_default=True, help="of the frames")
@click.option("--repeats", default=1, show_default=True)
def main(files: int, seconds: int, depth: int, size: str, repeats: int) -> None:
    """Prints seconds and ratios."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        films = [_film(Path(root) / f"{n}.mp4", seconds, n, *map(int, size.split("x"))) for n in range(files)]
        encoder = _encoder(Path(root) / "encoder", depth)
        columns = Columns({ALONE: encoder}, torch.device("cpu"))
        cutting = Cutting(tuple(columns.windows.values()))
        names = [str(film) for film in films]
        some = list(_clips(names[:1], cutting))  # starts the server that processes are forked from, too
        total = len(some) * files

        def encode() -> None:
            for _ in range(files):
                for batch in reading.batches(iter(some), BATCH):
                    columns.features(batch)

        def together() -> None:
            embed.run(encoder, tuple(films), Path(root) / "out.parquet", BATCH, force=True, workers=1)

        for _ in range(repeats):
            decoding = _timed(lambda: sum(1 for _ in _clips(names, cutting)))
            click.echo(f"{total} clips: decoding alone {decoding:.1f} s")
            encoding = _timed(encode)
            click.echo(f"encoding alone {encoding:.1f} s")
            both = _timed(together)
            click.echo(f"xkd embed {both:.1f} s: {both / max(decoding, encoding):.2f} of the larger of the two")


def _clips(names: list[str], cutting: Cutting):
    surveys, faults = reading.surveyed(names, cutting, workers=1)
    return reading.clips_of(surveys, cutting, faults, workers=1)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _encoder(place: Path, depth: int) -> Path:
    torch.manual_seed(0)
    config = EncoderConfig(
        modality="video",
        owner="student",
        width=384,
        depth=depth,
        heads=6,
        patch=(4, 16, 16),
        grid=(4, 7, 7),
        input=VideoInput(frames=16, fps=8, short_side=128, size=112),
        origin="a benchmark",
        licence="MIT",
    )
    folder.save(folder.build(config), config, place)
    return place


def _film(path: Path, seconds: int, seed: int, width: int, height: int) -> Path:
    """A picture of noise that pans."""
    picture = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 4, 3), dtype=np.uint8)
    picture = picture.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number in range(25 * seconds):
            left = 2 * number % width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:, left : left + width]), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


if __name__ == "__main__":
    main()
