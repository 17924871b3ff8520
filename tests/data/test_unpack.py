"""Archives: every kind the data sets use, and everything that must be refused."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
import rarfile
from archives import split_zip, write_rar

from xkd.data.sources import unpack as module
from xkd.data.sources.unpack import Budget, unpack
from xkd.errors import UserError

FILES = {"top.txt": b"1", "a folder/deep.bin": os.urandom(300_000), "empty": b""}


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    """What is in a folder but for the journal."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".jsonl")


def write_zip(path, files, mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode:
                info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def write_tar(path, files, links=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


@pytest.mark.parametrize(("name", "write"), [("a.zip", write_zip), ("a.tar.gz", write_tar), ("a.rar", write_rar)])
def test_files_come_out_as_they_went_in(tmp_path, name, write):
    unpack(write(tmp_path / name, FILES), tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


def test_unpacked_once(tmp_path):
    archive = write_zip(tmp_path / "a.zip", FILES)
    unpack(archive, tmp_path / "out")
    archive.write_bytes(b"changed")
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


def test_archives_in_an_archive(tmp_path):
    inner = write_rar(tmp_path / "inner.rar", {"run/a clip.avi": b"film"})
    outer = write_rar(tmp_path / "outer.rar", {"run.rar": inner.read_bytes(), "list.txt": b"x"})
    unpack(outer, tmp_path / "out", nested=True)
    assert tree(tmp_path / "out") == {"run/a clip.avi": b"film", "list.txt": b"x"}


@pytest.mark.parametrize("part_size", [65_536, 100_000, 299_990])
def test_split_zip(tmp_path, part_size):
    files = FILES | {f"audio/{i}.wav": os.urandom(50_000) for i in range(5)}
    parts = split_zip(write_zip(tmp_path / "a.zip", files), part_size)
    assert len(parts) > 1
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == files


def test_missing_part_of_a_split_zip(tmp_path):
    split_zip(write_zip(tmp_path / "a.zip", FILES), 65_536)
    (tmp_path / "a.z02").unlink()
    with pytest.raises(UserError, match=r"last of 5 parts, and a\.z02 is missing"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/absolute.txt", "a/../../b", "..\\windows"])
@pytest.mark.parametrize(("suffix", "write"), [("zip", write_zip), ("tar.gz", write_tar), ("rar", write_rar)])
def test_members_that_leave_the_target_are_refused(tmp_path, suffix, write, name):
    folder = tmp_path / "inside"
    folder.mkdir()
    archive = write(folder / f"a.{suffix}", {"good.txt": b"1", name: b"evil"})
    before = tree(tmp_path)
    journal = "inside/.xkd-unpack.jsonl"
    with pytest.raises(UserError, match="would leave the target folder"):
        unpack(archive, folder / "out")
    assert {path: content for path, content in tree(tmp_path).items() if path != journal} == before


def test_links_and_devices_are_refused(tmp_path):
    archives = [
        write_zip(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode=0o120777),
        write_rar(tmp_path / "a.rar", {}, links={"link": "/etc/passwd"}),
        write_tar(tmp_path / "a.tar.gz", {}, [("link", "/etc/passwd", tarfile.SYMTYPE)]),
        write_tar(tmp_path / "b.tar.gz", {"x": b""}, [("hard", "x", tarfile.LNKTYPE)]),
        write_tar(tmp_path / "c.tar.gz", {}, [("pipe", "", tarfile.FIFOTYPE)]),
    ]
    for archive in archives:
        with pytest.raises(UserError, match="is a link"):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*.part"))


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ALWAYS_ALLOWED", 1000)
    archive = write_zip(tmp_path / "a.zip", {"zeros": bytes(2_000_000)})
    with pytest.raises(UserError, match=r"would become 0\.0 GB"):
        unpack(archive, tmp_path / "out")


def test_member_that_brings_more_than_it_declares(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"x": bytes(1000)})
    content = archive.read_bytes()
    sizes = (1000).to_bytes(4, "little")
    archive.write_bytes(content.replace(sizes, (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match="larger than the archive says|damaged"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "write"), [("a.zip", write_zip), ("a.tar.gz", write_tar), ("a.rar", write_rar)])
def test_cut_archive_is_named_and_leaves_nothing(tmp_path, name, write):
    archive = write(tmp_path / name, FILES)
    archive.write_bytes(archive.read_bytes()[:-200_000])
    with pytest.raises(UserError, match=f"{name}: "):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == [name]


def test_what_a_killed_unpacking_left_goes_and_folders_of_others_stay(tmp_path):
    archive = write_zip(tmp_path / "a.zip", FILES)
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "mine").write_bytes(b"mine")
    code = (
        "import sys, pathlib; from xkd.data.sources import unpack as module;"
        "module._write = lambda member, path: (path.touch(), print('writing', flush=True), sys.stdin.read());"
        "module.unpack(*map(pathlib.Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(archive), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    assert len(names(tmp_path)) == 3
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    assert names(tmp_path) == ["a.zip", "out", "out.part"]
    assert tree(tmp_path / "out.part") == {"mine": b"mine"}


def test_compressed_rar_without_a_tool_says_what_to_install(tmp_path, monkeypatch):
    def no_tool(*_, **__):
        raise rarfile.RarCannotExec("none")

    monkeypatch.setattr(rarfile, "tool_setup", no_tool)
    archive = write_rar(tmp_path / "a.rar", {"x": b"1"}, method=0x33)
    with pytest.raises(UserError, match="no program to read RAR.*apt install unar"):
        unpack(archive, tmp_path / "out")


def test_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", FILES)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(UserError, match="no space left"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["a.zip"]


def test_an_archive_without_files_is_no_data_set(tmp_path):
    for name, write in (("a.zip", write_zip), ("a.tar.gz", write_tar), ("a.rar", write_rar)):
        with pytest.raises(UserError, match="holds no files"):
            unpack(write(tmp_path / name, {}), tmp_path / "out")


def test_other_files_are_no_archives(tmp_path):
    (tmp_path / "a.7z").write_bytes(b"7z")
    with pytest.raises(UserError, match="not an archive"):
        unpack(tmp_path / "a.7z", tmp_path / "out")


WRITERS = [("a.zip", write_zip), ("a.tar.gz", write_tar), ("a.rar", write_rar)]


@pytest.mark.parametrize(("name", "write"), WRITERS)
@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("n" * 256, "too long or too deep"),
        ("/".join(["n" * 200] * 9), "too long or too deep"),
        ("d/" * 3000 + "x", "too long or too deep"),
        ("./.", "has no name"),
        ("a\nb", "no text"),
        ("./good.txt", "clashes"),
        ("GOOD.TXT", "clashes"),
        ("Good.txt/below", "clashes"),
        ("FOLDER", "clashes"),
        ("folder/ü", "clashes"),  # composed here, and decomposed below
    ],
)
def test_odd_members_are_one_line_that_names_archive_and_member(tmp_path, name, write, member, words):
    files = {"good.txt": b"1", "folder/below": b"2", "folder/u\u0308": b"3"}
    archive = write(tmp_path / name, files | {member: b"evil"})
    with pytest.raises(UserError) as error:
        unpack(archive, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    assert f"{name}: member '" in message
    assert words in message
    assert len(message) < 400
    assert names(tmp_path) == [name]


def test_members_of_a_compression_that_is_not_read_here(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 99):
        archive = write_zip(tmp_path / "a.zip", {"film.avi": bytes(1000)})
        content = bytearray(archive.read_bytes())
        for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            content[content.index(signature) + place] = method
        archive.write_bytes(content)
        with pytest.raises(
            UserError, match=rf"a\.zip: .*member 'film\.avi': compression method {method}.*another program"
        ):
            unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(
    "raised",
    [
        NotImplementedError(),
        RuntimeError("x\ny"),
        UnicodeDecodeError("utf8", b"\xff", 0, 1, "bad"),
        MemoryError(),
    ],
)
def test_whatever_a_library_raises_is_about_the_archive(tmp_path, monkeypatch, raised):
    def broken(*_):
        raise raised

    archive = write_zip(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(module, "_write", broken)
    with pytest.raises(UserError, match=r"a\.zip: member 'top\.txt' is damaged, or of a kind") as error:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert names(tmp_path) == ["a.zip"]


def test_archives_of_a_data_set_share_one_budget_with_those_inside(tmp_path, monkeypatch):
    """Each of these is below the limit alone."""
    monkeypatch.setattr(module, "ALWAYS_ALLOWED", 3_000_000)
    inner = write_zip(tmp_path / "inner.zip", {"zeros": bytes(1_200_000)}).read_bytes()
    outer = write_zip(tmp_path / "outer.zip", {f"{i}/{i}.zip": inner for i in range(4)})
    with pytest.raises(UserError, match=r"outer\.zip: 2/2\.zip: 0 MB of archives would become 0\.0 GB or more"):
        unpack(outer, tmp_path / "out", nested=True)
    assert not (tmp_path / "out").exists()
    budget, zeros = Budget(), write_zip(tmp_path / "zeros.zip", {"zeros": bytes(1_200_000)})
    unpack(zeros, tmp_path / "1", budget=budget)
    unpack(zeros, tmp_path / "2", budget=budget)
    with pytest.raises(UserError, match="would become"):
        unpack(zeros, tmp_path / "3", budget=budget)
    with pytest.raises(UserError, match="would become"):  # empty files fill a disk, too
        unpack(write_zip(tmp_path / "many.zip", {f"{i}": b"" for i in range(2000)}), tmp_path / "4")


def test_archives_nested_too_deep_and_damaged_ones_inside_are_named(tmp_path):
    content = write_zip(tmp_path / "x.zip", {"film.avi": b"film"}).read_bytes()
    for level in range(6):
        content = write_zip(tmp_path / "x.zip", {f"{level}.zip": content}).read_bytes()
    with pytest.raises(UserError, match=r"x\.zip: 5\.zip: 4\.zip: 3\.zip: 2\.zip: archives nested deeper"):
        unpack(tmp_path / "x.zip", tmp_path / "out", nested=True)
    outer = write_zip(tmp_path / "outer.zip", {"class/a.zip": b"no zip"})
    with pytest.raises(UserError, match=r"outer\.zip: class/a\.zip: damaged"):
        unpack(outer, tmp_path / "out", nested=True)
    film = write_zip(tmp_path / "x.zip", {"film.avi": b"film"}).read_bytes()
    clash = write_zip(tmp_path / "clash.zip", {"1.zip": film, "2.zip": film})
    with pytest.raises(UserError, match="clashes"):
        unpack(clash, tmp_path / "out", nested=True)
    assert not (tmp_path / "out").exists()


def test_headers_that_would_fill_the_memory_are_refused(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    content = tarfile.TarInfo("empty").tobuf() + info.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match="a header of 4294967296 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
