"""Layouts: how the clips of each kind of data set are found among its files.

A layout is a function, registered under the kind of the data set. It takes the tree of the files that people have,
whatever the folders, and returns one row per clip that the official lists name, whether the file is there or not:
`prepare` reports which are missing. Columns are those of `xkd.data.listing`: `id`, `path` (absolute) and any others.
`split` is the role in the first official fold; `fold` says in which fold a clip is tested, or names its role in each
("1:train 2:unused 3:test"). `video_source` and `audio_source` name what a clip was cut from: clips of one source are
not independent.

KeyError, ValueError and IndexError tell the user that the lists are damaged.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from xkd.data.listing import LABEL_SEPARATOR, read_listing
from xkd.data.sources.tree import Tree, is_media
from xkd.errors import UserError
from xkd.made import listed_by
from xkd.registry import layouts

KINETICS_SOUND = Path(__file__).with_name("kinetics_sound_classes.txt")
FOLDS = ("1", "2", "3")
HMDB_ROLES = {"0": "unused", "1": "train", "2": "test"}
# <video>_<class>_<visible body parts>_<camera motion>_np<people>_<camera view>_<quality>_<number>
HMDB_TAGS = re.compile(r"_[a-z]+_(cm|nm)_np\d+_[a-z]+_[a-z]+_\d+$")
# Copies write the seconds as 30, 30.000 or 000030, with or without the end, or leave them out; some put a Y in front.
YOUTUBE = re.compile(r"Y?(?P<id>[A-Za-z0-9_-]{11})(_(?P<start>\d+(\.\d+)?)(_\d+(\.\d+)?)?)?")
FOLDERS_OF_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@layouts.register("ucf101")
def ucf101(tree: Tree) -> pd.DataFrame:
    """Lists UCF101 (Soomro et al. 2012). `testlist0<n>.txt` names the clips tested in fold n; all others train there.

    `v_<class>_g<group>_c<number>.avi`: clips of a group were cut from one video.
    """
    lists = _file(tree, "classInd.txt").parent
    tested = {line: number for number in FOLDS for line in _lines(lists / f"testlist0{number}.txt")}
    trained = {line.split()[0] for number in FOLDS for line in _lines(lists / f"trainlist0{number}.txt")}
    names = sorted(tested.keys() | trained)
    stems = [Path(name).stem for name in names]
    return _table(
        id=stems,
        path=[tree.clip(stem) or tree.roots[0] / name for stem, name in zip(stems, names, strict=True)],
        split=["test" if tested.get(name) == FOLDS[0] else "train" for name in names],
        label=[name.split("/")[0] for name in names],
        fold=[tested.get(name, "") for name in names],
        source=[stem.removeprefix("v_").rsplit("_c", 1)[0] for stem in stems],
    )


@layouts.register("hmdb51")
def hmdb51(tree: Tree) -> pd.DataFrame:
    """Lists HMDB51 (Kuehne et al. 2011).

    Each fold takes 70 clips of a class for training and 30 for testing, and leaves the rest.
    File names begin with that of the video, before the class and the tags.
    """
    roles: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in tree.files:
        label, _, number = path.stem.rpartition("_test_split")
        if label and number in FOLDS and path.suffix == ".txt":
            for line in _lines(path):
                name, role = line.rsplit(maxsplit=1)
                roles[label, name][number] = HMDB_ROLES[role]
    if not roles:
        raise UserError(f"{tree.shown()}: no <class>_test_split1.txt of HMDB51 in there; is the data set complete?")
    keys = sorted(roles)
    return _table(
        id=[f"{label}/{Path(name).stem}" for label, name in keys],
        path=[tree.clip(Path(name).stem, label) or tree.roots[0] / label / name for label, name in keys],
        split=[roles[key].get(FOLDS[0], "unused") for key in keys],
        label=[label for label, _ in keys],
        fold=[" ".join(f"{number}:{roles[key].get(number, 'unused')}" for number in FOLDS) for key in keys],
        source=[HMDB_TAGS.sub("", Path(name).stem).removesuffix(f"_{label}") for label, name in keys],
    )


@layouts.register("kinetics400")
def kinetics400(tree: Tree) -> pd.DataFrame:
    """Lists Kinetics400 (Kay et al. 2017): trained on train and tested on val, as everyone does."""
    tables = []
    for names, split in ((("train.csv",), "train"), (("val.csv", "validate.csv"), "test")):
        table = _read(_file(tree, *names), "label", "youtube_id", "time_start", "time_end")
        tables.append(table.assign(split=split))
    rows = pd.concat(tables, ignore_index=True)
    starts, ends = (rows[name].astype(float).astype(int) for name in ("time_start", "time_end"))
    ids = [f"{video}_{a:06d}_{b:06d}" for video, a, b in zip(rows["youtube_id"], starts, ends, strict=True)]
    clips = _youtube_clips(tree, rows["youtube_id"], starts)
    return _table(
        id=ids,
        path=[path or tree.roots[0] / f"{id}.mp4" for path, id in zip(clips, ids, strict=True)],
        split=rows["split"].tolist(),
        label=rows["label"].tolist(),
        source=rows["youtube_id"].tolist(),
    )


@layouts.register("kinetics_sound")
def kinetics_sound(tree: Tree) -> pd.DataFrame:
    """Lists Kinetics-Sound: the 32 classes of Kinetics400 that the paper lists, which can be both heard and seen."""
    table: pd.DataFrame = kinetics400(tree)
    classes = _lines(KINETICS_SOUND)
    return table[table["label"].isin(classes)].reset_index(drop=True)


@layouts.register("esc50")
def esc50(tree: Tree) -> pd.DataFrame:
    """Lists ESC-50 (Piczak 2015): five folds, each tested once. `src_file` is the recording that holds a clip."""
    table = _read(_file(tree, "esc50.csv"), "filename", "fold", "category", "src_file")
    return _table(
        id=[Path(name).stem for name in table["filename"]],
        path=[tree.clip(Path(name).stem, "audio") or tree.roots[0] / "audio" / name for name in table["filename"]],
        split=["test" if fold == "1" else "train" for fold in table["fold"]],
        label=table["category"].tolist(),
        fold=table["fold"].tolist(),
        source=table["src_file"].tolist(),
    )


@layouts.register("fsd50k")
def fsd50k(tree: Tree) -> pd.DataFrame:
    """Lists FSD50K (Fonseca et al. 2022): several labels per clip; train, val and eval. The source is the uploader."""
    parts = []
    for name, folder in (("dev", "FSD50K.dev_audio"), ("eval", "FSD50K.eval_audio")):
        table = _read(_file(tree, f"{name}.csv"), "fname", "labels")
        uploaders = _uploaders(tree, f"{name}_clips_info_FSD50K.json")
        parts.append(
            _table(
                id=[f"{name}-{fname}" for fname in table["fname"]],
                path=[tree.clip(fname, folder) or tree.roots[0] / folder / f"{fname}.wav" for fname in table["fname"]],
                split=table["split"].tolist() if "split" in table else ["test"] * len(table),
                label=[labels.replace(",", LABEL_SEPARATOR) for labels in table["labels"]],
                source=[uploaders.get(fname, "") for fname in table["fname"]],
            )
        )
    return pd.concat(parts, ignore_index=True)


@layouts.register("audioset")
def audioset(tree: Tree) -> pd.DataFrame:
    """Lists AudioSet (Gemmeke et al. 2017): ten-second segments of videos; the tree's first folder holds the clips."""
    names = pd.read_csv(_file(tree, "class_labels_indices.csv"), dtype=str).set_index("mid")["display_name"]
    names = names.str.replace(LABEL_SEPARATOR, ",")
    tables = []
    for name, split in (("balanced_train", "train"), ("unbalanced_train", "train"), ("eval", "test")):
        path = _file(tree, f"{name}_segments.csv")
        columns = ["youtube", "start", "end", "mids"]
        table = pd.read_csv(path, comment="#", names=columns, dtype=str, skipinitialspace=True, quotechar='"')
        tables.append(table.assign(split=split))
    rows = pd.concat(tables, ignore_index=True).drop_duplicates(["youtube", "start"], ignore_index=True)
    starts = rows["start"].astype(float)
    ids = [f"{video}_{start:g}" for video, start in zip(rows["youtube"], starts, strict=True)]
    clips = _youtube_clips(tree, rows["youtube"], starts)
    return _table(
        id=ids,
        path=[path or tree.roots[0] / f"{id}.mp4" for path, id in zip(clips, ids, strict=True)],
        split=rows["split"].tolist(),
        label=[LABEL_SEPARATOR.join(names.get(mid, mid) for mid in mids.split(",")) for mids in rows["mids"]],
        source=rows["youtube"].tolist(),
    )


@layouts.register("folder")
def class_folders(tree: Tree) -> pd.DataFrame:
    """Lists own clips: `<class>/<file>`, or the same in `train/` and `test/`; leaves out what xkd prepared."""
    if not all(root.is_dir() for root in tree.roots):
        raise UserError(f"{tree.shown()}: not a folder; a CSV needs kind: manifest")
    media = {tree.relative(path): path for path in _without_prepared(tree)}
    splits = any(name.parts[0].lower() in FOLDERS_OF_SPLITS for name in media)
    depth = 2 if splits else 1
    names = [name for name in media if len(name.parts) > depth]
    if not names:
        raise UserError(f"{tree.shown()}: no media files in folders named after their class, such as dog/clip.mp4")
    if len(names) < len(media):
        outside = next(name for name in media if len(name.parts) <= depth)
        print(
            f"xkd: {tree.shown()}: {len(media) - len(names)} media files are in no folder of a class and are left out, "
            f"such as {outside}",
            file=sys.stderr,
        )
    return pd.DataFrame(
        {
            "path": _texts([media[name] for name in names]),
            "id": [str(name.with_suffix("")) for name in names],
            "split": [FOLDERS_OF_SPLITS.get(n.parts[0].lower(), n.parts[0]) if splits else "train" for n in names],
            "label": [name.parts[depth - 1] for name in names],
        }
    )


@layouts.register("manifest")
def listed(tree: Tree) -> pd.DataFrame:
    """Lists own clips that a CSV names, with paths absolute or relative to it."""
    path = tree.roots[0]
    table = read_listing(path)
    return table.assign(path=[os.path.join(path.parent, name) for name in table["path"]])


def _without_prepared(tree: Tree) -> list[Path]:
    media = [path for path in tree.files if is_media(path)]
    prepared = listed_by("prepare", media)
    if media and len(prepared) == len(media):
        raise UserError(f"{tree.shown()}: holds clips that `xkd prepare` made; give the folder of the original ones")
    if prepared:
        print(f"xkd: {tree.shown()}: {len(prepared)} clips that `xkd prepare` made are left out", file=sys.stderr)
    return [path for path in media if path not in prepared]


def _table(path: list[Path], source: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"path": _texts(path), **columns, "video_source": source, "audio_source": source})


def _texts(paths: list[Path]) -> list[str]:
    texts = list(map(str, paths))
    for text in texts:
        if re.search("[\\ud800-\\udfff]", text):  # Python reads bytes that are not UTF-8 so
            raise UserError(f"{text!a}: a name that is not UTF-8; rename the file")
    return texts


def _youtube_clips(tree: Tree, videos: Iterable[str], starts: Iterable[float]) -> list[Path | None]:
    """Finds each segment's file by video and start (seconds or milliseconds), or by a video with one segment alone."""
    there: dict[tuple[str, float | None], Path] = {}
    for path in sorted(tree.media(), key=_better_last):
        if match := YOUTUBE.fullmatch(path.stem):
            there[match["id"], None if match["start"] is None else float(match["start"])] = path
    segments = list(zip(videos, starts, strict=True))
    counts = pd.Series([video for video, _ in segments]).value_counts()
    found = []
    for video, start in segments:
        keys: list[tuple[str, float | None]] = [(video, start), (video, 1000 * start)] if start else [(video, start)]
        keys += [(video, None)] if counts[video] == 1 else []
        found.append(next((there[key] for key in keys if key in there), None))
    return found


def _better_last(path: Path) -> tuple[bool, bool, str]:
    """Sorts files: a video comes after its audio alone, and a replaced video after its corrupted first version."""
    replaced = any("replacement" in part for part in path.parts[-3:])
    return path.suffix.lower() not in (".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus"), replaced, str(path)


def _uploaders(tree: Tree, name: str) -> dict[str, str]:
    """Returns who uploaded each clip to Freesound; without the metadata, each clip counts as its own source."""
    found = tree.named(name)
    if not found:
        print(
            f"xkd: FSD50K: no {name} in {tree.shown()}: each clip counts as independent; FSD50K.metadata.zip holds it",
            file=sys.stderr,
        )
        return {}
    return {clip: str(facts["uploader"]) for clip, facts in json.loads(found[0].read_text(encoding="utf-8")).items()}


def _file(tree: Tree, *names: str) -> Path:
    """Returns the file of the first of these names that is there; of several, the one with the fewest folders above."""
    for name in names:
        if found := tree.named(name):
            return min(found, key=lambda path: len(path.parts))
    raise UserError(f"{tree.shown()}: no {names[0]} in there; is the data set complete?")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError:
        raise UserError(f"{path}: missing; is the data set complete?") from None


def _read(path: Path, *names: str) -> pd.DataFrame:
    """Reads a CSV that has at least these columns, all values as text."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    absent = [name for name in names if name not in table]
    if absent:
        raise UserError(f"{path}: has no column '{absent[0]}'; columns: {', '.join(table.columns)}")
    return table
