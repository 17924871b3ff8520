"""What people have on their disks: official archives, unpacked, sorted, renamed, converted, or some of each."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import official
import pytest

from xkd.data import listing
from xkd.data.sources.state import state_of
from xkd.data.sources.unpack import is_archive, unpack
from xkd.errors import UserError
from xkd.settings import Dataset
from xkd.stages import download

# What is in the files does not matter to `download`.
MEDIA = SimpleNamespace(avi=[b"avi 0", b"avi 1"], mp4=[b"mp4 0", b"mp4 1"], wav=[b"wav 0" * 99, b"wav 1" * 99])
VANISHED = {"kinetics400": 1, "kinetics_sound": 1, "audioset": 1}  # of the miniature, for good
SUFFIXES = (".avi", ".mp4", ".wav")


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Per kind a folder with its archives, and how many clips they list."""
    made = {}
    for kind in ("ucf101", "hmdb51", "kinetics400", "esc50", "fsd50k", "audioset"):
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = folder, getattr(official, kind)(folder, MEDIA)
    return made


@pytest.fixture
def copy(sites, tmp_path):
    """A copy of a site in tmp_path/mine."""

    def copied(kind: str) -> Path:
        return Path(shutil.copytree(sites[kind][0], tmp_path / "mine"))

    return copied


class Settings:
    def __init__(self, **datasets):
        self.datasets = {name: Dataset(**values) for name, values in datasets.items()}


def downloaded(kind, source, out):
    download.run(Settings(x={"kind": kind, "source": str(source)}), "x", out)
    table = listing.read_listing(out / "index.csv")
    return table.assign(found=[(out / path).is_file() for path in table["path"]]).set_index("id")


def clips(folder):
    return [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]


def unpack_all(folder, keep=False, but=()):
    """As people do by hand: each archive where it lies."""
    for path in sorted(path for path in folder.rglob("*") if is_archive(path) and path.name not in but):
        target = path.with_name(path.name + ".tmp")
        unpack(path, target, nested=True)
        shutil.copytree(target, path.parent, dirs_exist_ok=True)
        shutil.rmtree(target)
        if not keep:
            for part in path.parent.glob(path.stem + ".z*"):
                part.unlink()
            path.unlink(missing_ok=True)


def rename(folder, change):
    for path in clips(folder):
        target = folder / change(path.relative_to(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def nothing(mine):
    pass


def no_replacements(mine):
    (mine / "replacement_for_corrupted_k400.tgz").unlink()


def beside_the_archives(mine):
    unpack_all(mine, keep=True)


def one_archive_unpacked(mine):
    unpack_all(mine, but=("part_1.tar.gz",))


def unpacking_was_interrupted(mine):
    unpack_all(mine / "train", keep=True)
    for path in clips(mine / "train")[::2]:
        path.unlink()


def linked_folders(mine):
    unpack_all(mine)
    for split in ("train", "val"):
        (mine / split).rename(mine.parent / f"disk of {split}")
        (mine / split).symlink_to(mine.parent / f"disk of {split}")
    (mine / "again").symlink_to(mine)  # in a circle


def linked_files(mine):
    unpack_all(mine)
    (mine.parent / "pool").mkdir()
    for number, path in enumerate(clips(mine)):
        path.rename(mine.parent / "pool" / f"{number}")
        path.symlink_to(mine.parent / "pool" / f"{number}")


def id_alone(mine):
    unpack_all(mine)
    rename(mine, lambda path: path.with_name(path.name[:11] + path.suffix))


def unpadded_seconds(mine):
    unpack_all(mine)
    rename(mine, lambda path: path.with_name(path.name[:11] + f"_{int(path.stem.split('_')[-2])}.0" + path.suffix))


def suffix(new):
    def converted(mine):
        unpack_all(mine)
        rename(mine, lambda path: path.with_suffix(new))

    converted.__name__ = f"suffix_{new}"
    return converted


def class_folders(mine):
    unpack_all(mine)
    rename(mine, lambda path: path.parent / ["blowing_nose", "tap dancing"][len(path.stem) % 2] / path.name)


def scripts_of_cvdf(mine):
    """k400_targz/ with the archives, k400/ with what was in them."""
    packed = mine / "k400_targz"
    packed.mkdir()
    for name in ("train", "val"):
        (mine / name).rename(packed / name)
    (packed / "replacement").mkdir()
    (mine / "replacement_for_corrupted_k400.tgz").rename(packed / "replacement" / "replacement_for_corrupted_k400.tgz")
    shutil.copytree(packed, mine / "k400")
    unpack_all(mine / "k400")
    (mine / "k400" / "annotations").mkdir()
    for name in ("train.csv", "val.csv"):
        (mine / name).rename(mine / "k400" / "annotations" / name)


def lists_of_deepmind(mine):
    unpack_all(mine)
    (mine / "val.csv").rename(mine / "validate.csv")


def only(name):
    def some(mine):
        unpack_all(mine, but=(name,))

    some.__name__ = f"only_{name}_is_packed"
    return some


def flat(mine):
    unpack_all(mine)
    rename(mine, lambda path: Path("videos") / path.name)


def left_by_systems(mine):
    unpack_all(mine)
    for path in clips(mine):
        path.with_name("._" + path.name).write_bytes(b"macOS")
        path.with_name("Thumbs.db").write_bytes(b"Windows")
        (mine / "__MACOSX" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (mine / "__MACOSX" / path.parent.name / path.name).write_bytes(b"macOS")


def class_archives(mine):
    unpack(mine / "hmdb51_org.rar", mine / "classes")
    (mine / "hmdb51_org.rar").unlink()


def class_archives_beside_the_outer_one(mine):
    unpack(mine / "hmdb51_org.rar", mine / "classes")


def git_clone(mine):
    unpack(mine / "ESC-50-master.zip", mine / "x")
    (mine / "x" / "ESC-50-master").rename(mine / "ESC-50")
    (mine / "ESC-50" / ".git").mkdir()
    (mine / "ESC-50" / ".git" / "esc50.csv").write_text("no list")
    shutil.rmtree(mine / "x")
    (mine / "ESC-50-master.zip").unlink()


def sorted_anew(mine):
    git_clone(mine)
    (mine / "ESC-50" / "meta" / "esc50.csv").rename(mine / "esc50.csv")
    rename(mine, lambda path: Path("audio", "audio", path.name))


def joined_zips(mine):
    for part in ("dev", "eval"):
        unpack(mine / f"FSD50K.{part}_audio.zip", mine / "x")
        for piece in mine.glob(f"FSD50K.{part}_audio.z*"):
            piece.unlink()
        shutil.make_archive(str(mine / f"FSD50K.{part}_audio"), "zip", mine / "x")
        shutil.rmtree(mine / "x")


COPIES = [
    *(("kinetics400", shape) for shape in (nothing, no_replacements, beside_the_archives, one_archive_unpacked)),
    *(("kinetics400", shape) for shape in (unpacking_was_interrupted, linked_folders, linked_files, id_alone)),
    *(("kinetics400", shape) for shape in (unpadded_seconds, suffix(".mkv"), suffix(".webm"), suffix(".MP4"), flat)),
    *(("kinetics400", shape) for shape in (class_folders, scripts_of_cvdf, lists_of_deepmind, left_by_systems)),
    *(
        ("ucf101", shape)
        for shape in (nothing, only("UCF101.rar"), flat, suffix(".AVI"), suffix(".mp4"), left_by_systems)
    ),
    *(
        ("ucf101", shape)
        for shape in (only("UCF101TrainTestSplits-RecognitionTask.zip"), beside_the_archives, linked_files)
    ),
    *(
        ("hmdb51", shape)
        for shape in (nothing, beside_the_archives, class_archives, class_archives_beside_the_outer_one)
    ),
    *(("hmdb51", shape) for shape in (only("test_train_splits.rar"), suffix(".AVI"), flat, left_by_systems)),
    *(
        ("esc50", shape)
        for shape in (nothing, git_clone, sorted_anew, beside_the_archives, suffix(".WAV"), suffix(".flac"))
    ),
    *(
        ("fsd50k", shape)
        for shape in (nothing, joined_zips, beside_the_archives, only("FSD50K.ground_truth.zip"), flat)
    ),
]


@pytest.mark.parametrize(("kind", "shape"), COPIES, ids=lambda value: getattr(value, "__name__", value))
def test_copies_as_people_have_them_are_found(kind, shape, sites, copy, tmp_path):
    official_one = downloaded(kind, sites[kind][0], tmp_path / "official")
    mine = copy(kind)
    shape(mine)
    before = {path: path.stat().st_mtime_ns for path in mine.glob("*")}
    table = downloaded(kind, mine, tmp_path / "raw")
    assert table["found"].sum() == sites[kind][1] - VANISHED.get(kind, 0) == official_one["found"].sum()
    assert table.drop(columns="path").equals(official_one.drop(columns="path"))
    assert {path: path.stat().st_mtime_ns for path in mine.glob("*")} == before
    if shape in (beside_the_archives, scripts_of_cvdf):
        assert not clips(tmp_path / "raw"), "unpacked a second time"
    assert not [path for path in table["path"] if "._" in path or "__MACOSX" in path]


@pytest.mark.parametrize(
    "name",
    [
        "{id}_{start}.mp4",
        "{id}_{start}.000.WAV",
        "Y{id}_{start}.000_{end}.000.wav",
        "{id}.flac",
        "{id}_{start}000_{end}000.mkv",
    ],
)
def test_clips_of_audioset_as_people_call_them(name, copy, tmp_path):
    mine = copy("audioset")
    for path in clips(mine):
        id, start = path.stem.rsplit("_", 1)
        path.rename(path.with_name(name.format(id=id, start=start, end=int(start) + 10)))
    for lists in mine.glob("*.csv"):  # beside the clips, so that nothing is fetched
        lists.rename(mine / "clips" / lists.name)
    assert downloaded("audioset", mine / "clips", tmp_path / "raw")["found"].sum() == 17


@pytest.mark.parametrize("place", ["raw", "raw/files"])
@pytest.mark.parametrize("shape", [nothing, beside_the_archives])
def test_sets_may_name_the_raw_folder_of_a_set_that_has_a_local_copy(place, shape, copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape(copy("kinetics400"))
    whole = downloaded("kinetics400", "mine", Path("data/kinetics400/raw"))
    larger = downloaded("kinetics400", f"data/kinetics400/{place}", Path("data/kinetics400_256/raw"))
    sound = downloaded("kinetics_sound", f"data/kinetics400/{place}", Path("data/kinetics_sound/raw"))
    assert larger["found"].sum() == whole["found"].sum() == 23
    assert sound["found"].sum() == 15
    assert not clips(Path("data/kinetics400_256"))
    assert not clips(Path("data/kinetics_sound"))


def test_less_than_half_of_what_is_listed_is_an_error(copy, tmp_path, capsys):
    mine = copy("kinetics400")
    unpack_all(mine)
    train = sorted(path for path in clips(mine / "train") if (mine / "replacement").exists())
    shutil.rmtree(mine / "replacement")
    for path in train[:4]:
        path.unlink()
    downloaded("kinetics400", mine, tmp_path / "raw")
    assert (
        "test 12 of 12, train 7 of 12; the first without one is blowing-t00_000000_000010.mp4"
        in capsys.readouterr().err
    )
    for path in train[4:]:
        path.unlink()
    with pytest.raises(UserError) as error:
        downloaded("kinetics400", mine, tmp_path / "raw")
    for words in ("Kinetics400", str(mine), "test 12 of 12, train 0 of 12", "blowing-t00_000000_000010.mp4"):
        assert words in str(error.value)
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"films/{i}.mp4\n" for i in range(9)))
    with pytest.raises(UserError, match=r"list\.csv.* train 0 of 9; the first without one is 0\.mp4"):
        downloaded("manifest", tmp_path / "list.csv", tmp_path / "own")


def test_audioset_may_lack_most_clips_but_not_all(copy, tmp_path, capsys):
    mine = copy("audioset")
    for lists in mine.glob("*.csv"):
        lists.rename(mine / "clips" / lists.name)
    for path in clips(mine)[1:]:
        path.unlink()
    assert downloaded("audioset", mine / "clips", tmp_path / "raw")["found"].sum() == 1
    assert "AudioSet in " in capsys.readouterr().err
    clips(mine)[0].rename(mine / "clips" / "some name.mp4")
    with pytest.raises(UserError, match="AudioSet in .*test 0 of 6, train 0 of 12"):
        downloaded("audioset", mine / "clips", tmp_path / "raw")


def test_an_archive_that_changes_is_unpacked_anew_and_nothing_is_lost(copy, sites, tmp_path, capsys):
    mine = copy("esc50")
    changed = (mine / "ESC-50-master.zip").read_bytes()
    downloaded("esc50", mine, tmp_path / "raw")
    (next(iter(clips(tmp_path / "raw"))).parent / "notes.txt").write_text("my own")
    official.esc50(mine, SimpleNamespace(wav=[b"other sound", b"other"]))
    assert (mine / "ESC-50-master.zip").read_bytes() != changed
    table = downloaded("esc50", mine, tmp_path / "raw")
    assert {(tmp_path / "raw" / path).read_bytes() for path in table["path"]} == {b"other sound", b"other"}
    assert [path.read_text() for path in tmp_path.rglob("notes.txt")] == ["my own"]
    assert "has changed; what was in it before is kept as" in capsys.readouterr().err


def test_sources_name_what_clips_were_cut_from(sites, tmp_path):
    tables = {kind: downloaded(kind, sites[kind][0], tmp_path / kind) for kind in sites if kind != "audioset"}
    expected = {
        "ucf101": ("v_HandstandPushups_g02_c01", "HandstandPushups_g02"),
        "hmdb51": ("fall_floor/#3_a (film)_fall_floor_u_nm_np1_ba_goo_3", "#3_a (film)"),
        "kinetics400": ("blowing-v01_000003_000013", "blowing-v01"),
        "esc50": ("2-100001-A-1", "100001"),
        "fsd50k": ("dev-1004", "dev user 334"),
    }
    for kind, (id, source) in expected.items():
        assert tables[kind].loc[id, ["video_source", "audio_source"]].tolist() == [source, source], kind
    assert tables["ucf101"]["video_source"].value_counts().unique().tolist() == [2]
    assert tables["fsd50k"]["audio_source"].nunique() == 12


def test_fsd50k_without_its_metadata_says_that_sources_are_unknown(copy, tmp_path, capsys):
    mine = copy("fsd50k")
    (mine / "FSD50K.metadata.zip").unlink()
    table = downloaded("fsd50k", mine, tmp_path / "raw")
    assert table["found"].all()
    assert set(table["audio_source"]) == {""}
    assert "each clip counts as independent; FSD50K.metadata.zip holds it" in capsys.readouterr().err


def test_damaged_lists_are_one_line(copy, tmp_path):
    for kind, name, text in (
        ("kinetics400", "train.csv", "label,youtube_id,time_start,time_end\nx,y,never,1\n"),
        ("kinetics400", "val.csv", ""),
        ("hmdb51", "wave_test_split1.txt", "film.avi 7\n"),
        ("hmdb51", "wave_test_split2.txt", "film.avi\n"),
        ("ucf101", "testlist01.txt", b"\xff\xfe\x00"),
        ("fsd50k", "dev_clips_info_FSD50K.json", "{"),
    ):
        mine = copy(kind)
        unpack_all(mine)
        path = next(mine.rglob(name))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UserError, match="lists of .* are damaged or have another format") as error:
            downloaded(kind, mine, tmp_path / "raw")
        assert "\n" not in str(error.value)
        shutil.rmtree(mine)


def test_own_clips_behind_links_and_what_lies_outside_of_classes(tmp_path, capsys):
    for name in (
        "pool/dogs/a.mp4",
        "pool/dogs/b.M4V",
        "mine/loose.mp4",
        "mine/train/cat/c.wmv",
        "mine/train/cat/._c.wmv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "mine" / "Validation").mkdir()
    (tmp_path / "mine" / "Validation" / "dog").symlink_to(tmp_path / "pool" / "dogs")
    (tmp_path / "mine" / "train" / "circle").symlink_to(tmp_path / "mine")
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")  # results on another disk
    table = downloaded("folder", tmp_path / "mine", tmp_path / "data" / "mine" / "raw")
    assert table["found"].all()
    assert table[["split", "label"]].to_records().tolist() == [
        ("Validation/dog/a", "val", "dog"),
        ("Validation/dog/b", "val", "dog"),
        ("train/cat/c", "train", "cat"),
    ]
    assert "1 media files are in no folder of a class and are left out, such as loose.mp4" in capsys.readouterr().err


def test_the_state_of_a_source_changes_with_its_files_and_with_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine/dog/a.mp4", "mine/cat/b.wav", "copy/train.csv", "copy/train/c.mkv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"1")
    Path("list.csv").write_text("path\nmine/dog/a.mp4\nmine/gone.mp4\n")
    Path("mine/dog/circle").symlink_to(tmp_path / "mine")
    params = Settings(
        folder={"kind": "folder", "source": "mine"},
        manifest={"kind": "manifest", "source": "list.csv"},
        kinetics400={"kind": "kinetics400", "source": "copy"},
        sound={"kind": "kinetics_sound", "source": "data/kinetics400/raw/files"},
        fetched={"kind": "ucf101"},
        mirror={"kind": "ucf101", "source": "https://example.org/ucf101"},
        talking={"kind": "talking_digits"},
    )

    def states():
        return {name: state_of(params, name) for name in params.datasets}

    def changed():
        nonlocal before
        after = states()
        names = {name for name in after if after[name] != before[name]}
        before = after
        return names

    before = states()
    assert before == states()
    assert before["sound"] == before["kinetics400"]
    assert {name for name, state in before.items() if not state} == {"fetched", "mirror", "talking"}
    Path("mine/notes.txt").write_text("no clip")
    Path("mine/dog/._a.mp4").write_text("macOS")
    assert changed() == set()
    Path("mine/dog/a.mp4").write_bytes(b"22")
    assert changed() == {"folder", "manifest"}
    Path("mine/gone.mp4").write_bytes(b"it appears")
    assert changed() == {"folder", "manifest"}
    Path("mine/cat/b.wav").rename("mine/dog/b.wav")
    assert changed() == {"folder"}
    Path("copy/train/c.mkv").unlink()
    assert changed() == {"kinetics400", "sound"}
