"""Stage `export`: an encoder to a file for other runtimes, which is compared with the encoder before it is kept."""

from __future__ import annotations

from pathlib import Path

from xkd.encoders.exchange.formats import FORMATS
from xkd.encoders.exchange.graph import EncoderGraph, largest_difference, traced
from xkd.encoders.pretrained import load_encoder
from xkd.errors import UserError
from xkd.files import check_output, files_in, replacing
from xkd.progress import say

LARGEST = 1e-5


def run(encoder: Path, output: Path, file_format: str, force: bool = False) -> None:
    """Writes one graph from frames or samples to features, and compares it with the encoder on random clips.

    Args:
        encoder: folder of an encoder.
        output: file to write.
        file_format: a name of `FORMATS`.
        force: a file that is `output` already may be replaced; a file of the encoder never is.

    Raises:
        UserError: no encoder, a package is missing, a backbone that cannot be traced, or features that differ by more
            than `LARGEST`; `output` stays as it was.
    """
    written = FORMATS[file_format]
    check_output(output, files_in(encoder), force)
    written.check()
    graph = EncoderGraph(load_encoder(encoder)).eval()
    with replacing(output) as path:
        written.write(traced(graph), graph.input.name, graph.words, path)
        # Read anew: tracing must not have changed what it is compared with.
        difference = largest_difference(load_encoder(encoder), graph.input, written.load(path))
        if not difference <= LARGEST:
            raise UserError(
                f"{output}: not written; its features differ from those of {encoder} by up to {difference:.1e}, more "
                f"than {LARGEST:g}"
            )
    say(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB; features of random clips differ by at most {difference:.1e} "
        f"from those of {encoder}"
    )
