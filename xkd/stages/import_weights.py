"""Stage `import-weights`: released backbones to encoder folders."""

from __future__ import annotations

from pathlib import Path

from xkd.encoders import folder
from xkd.encoders.importing import import_backbone
from xkd.errors import UserError
from xkd.progress import say, track


def run(
    files: tuple[Path, ...],
    output: Path,
    heads: int | None = None,
    patch: tuple[int, ...] | None = None,
    view: tuple[int, ...] | None = None,
) -> None:
    """Writes `output`/<name of the file>/ for each file; all are read and checked before the first is written.

    Raises:
        UserError: a file that is no released backbone, or two of one name.
    """
    names = [path.name.removesuffix(".pth.tar") for path in files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"two files are called {min(twice)}; import them into different folders")
    encoders = [import_backbone(path, heads, patch, view) for path in track(files, "weights")]
    for name, (encoder, config) in zip(names, encoders, strict=True):
        folder.save(encoder, config, output / name)
        say(f"{output / name}: {config.modality} {config.owner}, {config.licence}")
