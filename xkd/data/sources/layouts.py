"""What the files of each data set mean: from their official folders and lists to one row per clip.

Every function takes a folder in which the unpacked files lie at any depth (that of AudioSet also one of clips), and gives the clips that the official
lists name, whether their files are there or not: `prepare` says which are missing. Columns as in `xkd.data.listing`,
paths relative to the folder. `split` is the role in the first official fold; `fold` says in which folds a clip is tested,
or names its role in each ("1:train 2:unused 3:test").
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import pandas as pd

from xkd.data.listing import LABEL_SEPARATOR
from xkd.errors import UserError

HERE = Path(__file__).parent
FOLDS = ("1", "2", "3")
MEDIA = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus")
HMDB_ROLES = {"0": "unused", "1": "train", "2": "test"}


def ucf101(root: Path) -> pd.DataFrame:
    """Soomro et al. 2012. `testlist0<n>.txt` names the clips tested in fold n, all others train there."""
    lists, rows = _file(root, "classInd.txt").parent, []
    folder = _file(root, "v_*_g01_c01.avi").parents[1]
    for number in FOLDS:
        for line in _lines(lists / f"testlist0{number}.txt"):
            rows.append((line, number))
    tested = dict(rows)
    trained = {line.split()[0] for number in FOLDS for line in _lines(lists / f"trainlist0{number}.txt")}
    names = sorted(tested.keys() | trained)
    return _table(
        root,
        id=[Path(name).stem for name in names],
        path=[folder / name for name in names],
        split=["test" if tested.get(name) == FOLDS[0] else "train" for name in names],
        label=[name.split("/")[0] for name in names],
        fold=[tested.get(name, "") for name in names],
    )


def hmdb51(root: Path) -> pd.DataFrame:
    """Kuehne et al. 2011. Each fold takes 70 clips of a class for training and 30 for testing, and leaves the rest."""
    roles: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in sorted(root.rglob("*_test_split[123].txt")):
        label, number = path.stem.rsplit("_test_split", 1)
        for line in _lines(path):
            name, role = line.rsplit(maxsplit=1)
            roles[label, name][number] = HMDB_ROLES[role]
    if not roles:
        raise UserError(f"{root}: no <class>_test_split1.txt of HMDB51 in there")
    folders = {path.name: path for path in root.rglob("*") if path.is_dir()}
    keys = sorted(roles)
    return _table(
        root,
        id=[f"{label}/{Path(name).stem}" for label, name in keys],
        path=[folders.get(label, root / label) / name for label, name in keys],
        split=[roles[key].get(FOLDS[0], "unused") for key in keys],
        label=[label for label, _ in keys],
        fold=[" ".join(f"{number}:{roles[key].get(number, 'unused')}" for number in FOLDS) for key in keys],
    )


def kinetics400(root: Path) -> pd.DataFrame:
    """Kay et al. 2017. Trained on train, tested on val as everyone does; files carry their first and last second."""
    there = {path.name: path for path in sorted(root.rglob("*.mp4"), key=_replacements_last)}
    parts = []
    for name, split in (("train.csv", "train"), ("val.csv", "test")):
        path = _file(root, name)
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        _need_columns(path, table, ("label", "youtube_id", "time_start", "time_end"))
        seconds = [f"{int(a):06d}_{int(b):06d}" for a, b in zip(table["time_start"], table["time_end"], strict=True)]
        ids = [f"{youtube}_{span}" for youtube, span in zip(table["youtube_id"], seconds, strict=True)]
        paths = [there.get(f"{id}.mp4", root / path.stem / f"{id}.mp4") for id in ids]
        parts.append(_table(root, id=ids, path=paths, split=split, label=table["label"].tolist()))
    return pd.concat(parts, ignore_index=True)


def kinetics_sound(root: Path) -> pd.DataFrame:
    """The 32 classes of Kinetics400 that the paper lists, those which can be heard and seen."""
    table = kinetics400(root)
    classes = _lines(HERE / "kinetics_sound_classes.txt")
    return table[table["label"].isin(classes)].reset_index(drop=True)


def esc50(root: Path) -> pd.DataFrame:
    """Piczak 2015. Five folds, each tested once."""
    path = _file(root, "esc50.csv")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    _need_columns(path, table, ("filename", "fold", "category"))
    return _table(
        root,
        id=[Path(name).stem for name in table["filename"]],
        path=[path.parents[1] / "audio" / name for name in table["filename"]],
        split=["test" if fold == "1" else "train" for fold in table["fold"]],
        label=table["category"].tolist(),
        fold=table["fold"].tolist(),
    )


def fsd50k(root: Path) -> pd.DataFrame:
    """Fonseca et al. 2022. Several labels a clip; the parts train, val and eval."""
    parts = []
    for name, folder in (("dev.csv", "FSD50K.dev_audio"), ("eval.csv", "FSD50K.eval_audio")):
        path = _file(root, name)
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        _need_columns(path, table, ("fname", "labels"))
        audio = next((found for found in sorted(root.rglob(folder)) if list(found.glob("*.wav"))), root / folder)
        parts.append(
            _table(
                root,
                id=[f"{path.stem}-{fname}" for fname in table["fname"]],
                path=[audio / f"{fname}.wav" for fname in table["fname"]],
                split=table["split"].tolist() if "split" in table else "test",
                label=[labels.replace(",", LABEL_SEPARATOR) for labels in table["labels"]],
            )
        )
    return pd.concat(parts, ignore_index=True)


def audioset(root: Path, clips: Path) -> pd.DataFrame:
    """Gemmeke et al. 2017. Ten-second segments of videos; clips are called `<youtube id>_<start in seconds>`."""
    names = pd.read_csv(_file(root, "class_labels_indices.csv"), dtype=str).set_index("mid")["display_name"]
    names = names.str.replace(LABEL_SEPARATOR, ",")
    there = {_segment(path.stem): path for path in clips.rglob("*") if path.suffix.lower() in MEDIA}
    parts = []
    for name, split in (("balanced_train", "train"), ("unbalanced_train", "train"), ("eval", "test")):
        path = _file(root, f"{name}_segments.csv")
        columns = ["youtube", "start", "end", "mids"]
        table = pd.read_csv(path, comment="#", names=columns, dtype=str, skipinitialspace=True, quotechar='"')
        ids = [f"{youtube}_{float(start):g}" for youtube, start in zip(table["youtube"], table["start"], strict=True)]
        labels = [LABEL_SEPARATOR.join(names.get(mid, mid) for mid in mids.split(",")) for mids in table["mids"]]
        paths = [there.get(id, clips / f"{id}.mp4") for id in ids]
        parts.append(_table(root, id=ids, path=paths, split=split, label=labels))
    return pd.concat(parts, ignore_index=True).drop_duplicates("id", ignore_index=True)


def class_folders(root: Path) -> pd.DataFrame:
    """Own clips: `<class>/<file>`, or `train/<class>/<file>` and `test/<class>/<file>`."""
    splits = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in MEDIA and path.is_file())
    depth = 2 if splits else 1
    rows = [path for path in paths if len(path.relative_to(root).parts) > depth]
    if not rows:
        raise UserError(f"{root}: no media files in folders named after their class, such as dog/clip.mp4")
    places = [path.relative_to(root).parts for path in rows]
    return _table(
        root,
        id=[str(path.relative_to(root).with_suffix("")) for path in rows],
        path=rows,
        split=[place[0] if splits else "train" for place in places],
        label=[place[depth - 1] for place in places],
    )


def _table(root: Path, path: list[Path], **columns: list[str] | str) -> pd.DataFrame:
    for file in path:
        if re.search("[\\ud800-\\udfff]", str(file)):  # how Python reads bytes that are no UTF-8
            raise UserError(f"{str(file)!a}: a name that is not UTF-8; rename the file")
    return pd.DataFrame({"path": [os.path.relpath(file, root) for file in path], **columns})


def _file(root: Path, pattern: str) -> Path:
    """The first file of that name, wherever the archive put it."""
    found = sorted(path for path in root.rglob(pattern) if not path.name.startswith("._"))
    if not found:
        raise UserError(f"{root}: no {pattern} in there; is the data set complete?")
    return found[0]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        raise UserError(f"{path}: missing; is the data set complete?") from None


def _need_columns(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> None:
    absent = [name for name in names if name not in table]
    if absent:
        raise UserError(f"{path}: has no column '{absent[0]}'; columns: {', '.join(table.columns)}")


def _replacements_last(path: Path) -> tuple[bool, str]:
    """So that a replaced video stands in for its corrupted first version."""
    return "replacement" in str(path), str(path)


def _segment(stem: str) -> str:
    """Id of a clip from its file name: seconds may be written 30, 30.000 or 000030, with or without an end."""
    match = re.fullmatch(r"(?P<youtube>.{11})_(?P<start>\d+(\.\d+)?)(_\d+(\.\d+)?)?", stem)
    return f"{match['youtube']}_{float(match['start']):g}" if match else stem
