"""Miniature copies of the data sets: real clips in each official layout, packed as their owners pack them."""

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

from archives import split_zip, write_rar

from xkd.data import catalogue
from xkd.data.sources import fetch

LABELS = 3  # classes, each with a few clips
ESC_FOLDS = 5


class Media:
    """Bytes of small clips of different pictures and pitches, made once; every other AVI is silent, as in UCF101."""

    def __init__(self, folder: Path, write, films: int = 2, sounds: int = 2):
        looks = [{"brightest": 200 - 120 * i // films, "pitch": 500 + 200 * i} for i in range(films)]
        paths = [folder / str(i) for i in range(max(films, sounds))]
        self.avi = [
            write(path.with_suffix(".avi"), codec="mpeg4", audio=i % 2 == 0, **look).read_bytes()
            for i, (path, look) in enumerate(zip(paths, looks, strict=False))
        ]
        self.mp4 = [
            write(path.with_suffix(".mp4"), **look).read_bytes() for path, look in zip(paths, looks, strict=False)
        ]
        self.wav = [
            write(paths[i].with_suffix(".wav"), codec=None, pitch=500 + 100 * i).read_bytes() for i in range(sounds)
        ]


def ucf101(site: Path, media: Media) -> int:
    """UCF101.rar and its lists; groups 1 to 3 are tested in one fold each, 4 in none."""
    classes = ["ApplyEyeMakeup", "BoxingPunchingBag", "HandstandPushups"]
    names = {c: [f"v_{c}_g{g:02}_c{k:02}.avi" for g in (1, 2, 3, 4) for k in (1, 2)] for c in classes}
    files = {
        f"UCF-101/{c}/{n}": media.avi[(i + 3 * k) % len(media.avi)]
        for k, c in enumerate(classes)
        for i, n in enumerate(names[c])
    }
    write_rar(site / "UCF101.rar", files)
    with zipfile.ZipFile(site / "UCF101TrainTestSplits-RecognitionTask.zip", "w") as archive:
        index = "".join(f"{i} {c}\r\n" for i, c in enumerate(classes, 1))
        archive.writestr("ucfTrainTestlist/classInd.txt", index)
        for fold in (1, 2, 3):
            pairs = [(i, c, n) for i, c in enumerate(classes, 1) for n in names[c]]
            train = "".join(f"{c}/{n} {i}\r\n" for i, c, n in pairs if f"_g{fold:02}_" not in n)
            test = "".join(f"{c}/{n}\r\n" for _, c, n in pairs if f"_g{fold:02}_" in n)
            archive.writestr(f"ucfTrainTestlist/trainlist0{fold}.txt", train)
            archive.writestr(f"ucfTrainTestlist/testlist0{fold}.txt", test)
    return len(files)


def hmdb51(site: Path, media: Media) -> int:
    """A RAR of one RAR per class; in each fold some clips are left unused."""
    classes, clips = ["brush_hair", "fall_floor", "wave"], 7
    inner, lists = {}, {}
    for k, label in enumerate(classes):
        names = [f"#{i}_a (film)_{label}_u_nm_np1_ba_goo_{i}.avi" for i in range(clips)]
        films = {f"{label}/{name}": media.avi[(i + 3 * k) % len(media.avi)] for i, name in enumerate(names)}
        write_rar(site / "inner.rar", films)
        inner[f"{label}.rar"] = (site / "inner.rar").read_bytes()
        for fold in (1, 2, 3):
            roles = [1, 1, 1, 2, 2, 0, 0]
            lines = [f"{name} {roles[(i + fold) % clips]} \r\n" for i, name in enumerate(names)]
            lists[f"testTrainMulti_7030_splits/{label}_test_split{fold}.txt"] = "".join(lines).encode()
    (site / "inner.rar").unlink()
    write_rar(site / "hmdb51_org.rar", inner)
    write_rar(site / "test_train_splits.rar", lists)
    return len(classes) * clips


def kinetics400(site: Path, media: Media) -> int:
    """Lists of tar.gz parts, annotations, a part with replacements; one train video has vanished."""
    classes, count = ["blowing nose", "tap dancing", "abseiling"], 0
    for split in ("train", "val"):
        rows, files = [], []
        for k, label in enumerate(classes):
            for i in range(4):
                name = f"{label.replace(' ', '')[:7]}-{split[0]}{i:02}"
                assert len(name) == 11
                rows.append((label, name, 3 * i, 3 * i + 10, "validate" if split == "val" else split, 1))
                files.append(
                    (
                        f"./{name}_{3 * i:06d}_{3 * i + 10:06d}.mp4",
                        media.mp4[(4 * k + i + 2 * (split == "val")) % len(media.mp4)],
                    )
                )
        count += len(rows)
        _write_csv(site / f"{split}.csv", ("label", "youtube_id", "time_start", "time_end", "split", "is_cc"), rows)
        if split == "train":
            del files[0]
            files[0] = (files[0][0], b"corrupted")
            _write_tar(site / "replacement_for_corrupted_k400.tgz", [("replacement/" + files[0][0][2:], media.mp4[1])])
        (site / split).mkdir()
        for part in (0, 1):
            _write_tar(site / split / f"part_{part}.tar.gz", files[part::2])
        urls = "".join(f"https://s3.amazonaws.com/kinetics/400/{split}/part_{part}.tar.gz\n" for part in (0, 1))
        (site / f"k400_{split}_path.txt").write_text(urls)
    return count


def kinetics_sound(site: Path, media: Media) -> int:
    """The files of Kinetics400, of which two classes are heard and seen."""
    kinetics400(site, media)
    return 16


def esc50(site: Path, media: Media) -> int:
    """GitHub's zip of the master branch."""
    rows, classes = [], ["dog", "rain", "door_wood_knock"]
    with zipfile.ZipFile(site / "ESC-50-master.zip", "w") as archive:
        for number in range(30):
            name = f"{number % ESC_FOLDS + 1}-{100000 + number}-A-{number % 3}.wav"
            rows.append((name, number % ESC_FOLDS + 1, number % 3, classes[number % 3], "True", 100000 + number, "A"))
            archive.writestr(f"ESC-50-master/audio/{name}", media.wav[number % len(media.wav)])
        header = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
        archive.writestr("ESC-50-master/meta/esc50.csv", _csv(header, rows))
    return len(rows)


def fsd50k(site: Path, media: Media) -> int:
    """Split zips of sounds, ground truth and metadata in zips of their own, several labels a clip."""
    names = ["Bark,Dog", "Rain", "Rain,Thunder", "Guitar,Music"]
    with (
        zipfile.ZipFile(site / "FSD50K.ground_truth.zip", "w") as truth,
        zipfile.ZipFile(site / "FSD50K.metadata.zip", "w") as metadata,
    ):
        for part, count in (("dev", 24), ("eval", 8)):
            rows = [[1000 + i, names[i % 4], "/m/x", "val" if i % 6 == 5 else "train"] for i in range(count)]
            facts = {str(row[0]): {"title": "a", "uploader": f"{part} user {row[0] // 3}"} for row in rows}
            metadata.writestr(f"FSD50K.metadata/{part}_clips_info_FSD50K.json", json.dumps(facts))
            header = ["fname", "labels", "mids", "split"]
            if part == "eval":
                rows, header = [row[:3] for row in rows], header[:3]
            truth.writestr(f"FSD50K.ground_truth/{part}.csv", _csv(header, rows))
            with zipfile.ZipFile(site / f"FSD50K.{part}_audio.zip", "w") as archive:
                for i, row in enumerate(rows):
                    archive.writestr(f"FSD50K.{part}_audio/{row[0]}.wav", media.wav[i % len(media.wav)])
            size = (site / f"FSD50K.{part}_audio.zip").stat().st_size
            split_zip(site / f"FSD50K.{part}_audio.zip", -(-size // (6 if part == "dev" else 2)) + 100)
        truth.writestr("FSD50K.ground_truth/vocabulary.csv", "0,Bark,/m/x\n")
    return 32


def audioset(site: Path, media: Media) -> int:
    """The lists; clips are the user's own, in site/clips, one of them missing."""
    (site / "clips").mkdir()
    header = "# Segments csv created\n# num_ytids=1\n# YTID, start_seconds, end_seconds, positive_labels\n"
    count = 0
    for number, part in enumerate(("balanced_train", "unbalanced_train", "eval")):
        lines = []
        for i in range(6):
            name = f"-vid{number}{i:06}"
            lines.append(f'{name}, {30 + i}.000, {40 + i}.000, "/m/0{i % 3},/t/dd0003"\n')
            if count != 2:
                (site / "clips" / f"{name}_{30 + i}.mp4").write_bytes(media.mp4[i % len(media.mp4)])
            count += 1
        (site / f"{part}_segments.csv").write_text(header + "".join(lines))
    rows = [(i, f"/m/0{i}", f"Sound, of kind {i}") for i in range(3)] + [(3, "/t/dd0003", "Male singing")]
    _write_csv(site / "class_labels_indices.csv", ("index", "mid", "display_name"), rows)
    return count


def _write_tar(path: Path, files) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _write_csv(path: Path, header, rows) -> None:
    path.write_text(_csv(header, rows))


def _csv(header, rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def without_checksums(monkeypatch) -> None:
    """The miniatures are not the files whose checksums were published."""
    plain = {
        kind: facts.model_copy(
            update={"archives": tuple(one.model_copy(update={"checksum": ""}) for one in facts.archives)}
        )
        for kind, facts in catalogue.known_datasets().items()
    }
    monkeypatch.setattr(catalogue, "known_datasets", lambda: plain)
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.01)
