"""Stage `import-weights`: turns released backbones into encoder folders."""

from __future__ import annotations

from pathlib import Path

from xkd import made
from xkd.encoders import folder
from xkd.encoders.importing import import_backbone
from xkd.errors import UserError
from xkd.files import check_output
from xkd.progress import say, track

ENCODER_FILES = (folder.WEIGHTS, folder.HEAD, folder.DECODER, folder.CONFIG, folder.CARD)


def run(
    files: tuple[Path, ...],
    output: Path,
    heads: int | None = None,
    patch: tuple[int, ...] | None = None,
    view: tuple[int, ...] | None = None,
) -> None:
    """Writes `output`/<name of the file>/ for each file; all are read and checked before the first is written.

    Other files in `output` are kept.

    Raises:
        UserError: a file that is not a released backbone, or two files of one name.
    """
    names = [path.name.removesuffix(".pth.tar") for path in files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"two files are called {min(twice)}; import them into different folders")
    for name in names:
        if not name or (output / name).is_file():
            raise UserError(
                f"{output / name}: cannot be the folder of an encoder; rename the file of weights, or give another "
                "--output"
            )
    targets = [output / name / file for name in names for file in ENCODER_FILES]
    ours = made.listed_by("import-weights", targets)
    for target in targets:
        check_output(target, files, ours=target in ours)
    encoders = [import_backbone(path, heads, patch, view) for path in track(files, "weights")]
    with made.opened(output, "import-weights") as journal:
        for name, (encoder, config) in zip(names, encoders, strict=True):
            with journal.writing_folder(output / name) as temporary:
                folder.save(encoder, config, temporary)
            say(f"{output / name}: {config.modality} {config.owner}, {config.licence}")
