"""The journal lists the files that xkd wrote into a folder; no other file is replaced or removed."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from xkd import made
from xkd.errors import UserError
from xkd.files import replacing

WRITE = """
import os, sys
from pathlib import Path
from xkd import made
from xkd.files import replacing
folder = Path(sys.argv[1])
with made.opened(folder, "test") as files:
    with files.writing(folder / "sub" / "a.txt") as temporary, replacing(temporary) as inner:
        inner.write_text("half")
        temporary.write_text("half")
        print("writing", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        with made.opened(tmp_path, "test") as files, files.writing(tmp_path / name) as temporary:
            temporary.write_text(text)
        return tmp_path / name

    return write


def start(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


def test_files_that_xkd_wrote_are_replaced_and_removed(tmp_path, write):
    path = write("sub/a.txt", "one")
    assert write("sub/a.txt", "two").read_text() == "two"
    with made.opened(tmp_path, "test") as files:
        assert files.sweep(tmp_path / "sub", keep=set()) == []
    assert not path.exists()


def test_a_file_of_the_user_is_neither_replaced_nor_removed(tmp_path, write):
    (tmp_path / "sub").mkdir()
    mine = tmp_path / "sub" / "mine.txt"
    mine.write_text("mine")
    write("sub/a.txt", "one")
    with pytest.raises(UserError, match="mine.txt: is not known to be a file of `xkd test`"):
        write("sub/mine.txt", "other")
    with made.opened(tmp_path, "test") as files:
        assert not files.remove(mine)
        assert files.sweep(tmp_path / "sub", keep=set()) == [mine]
    assert mine.read_text() == "mine"
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def test_the_same_content_takes_the_place_of_what_is_there(tmp_path, write):
    (tmp_path / "a.txt").write_text("one")
    write("a.txt", "one")
    assert write("a.txt", "two").read_text() == "two"


def test_a_file_changed_since_is_set_aside(tmp_path, write, capsys):
    path = write("a.txt", "one")
    for number in (1, 2):
        path.write_text(f"edited {number}")
        with made.opened(tmp_path, "test") as files:
            assert not files.remove(path)
        write("a.txt", "new")
        assert (tmp_path / f"a.txt.set-aside-{number}").read_text() == f"edited {number}"
        assert path.read_text() == "new"
        assert f"a.txt.set-aside-{number}" in capsys.readouterr().err


def test_links_never_count_as_files_of_xkd(tmp_path, write):
    path = write("a.txt", "one")
    elsewhere = tmp_path / "elsewhere.txt"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with made.opened(tmp_path, "test") as files:
        assert not files.remove(path)
    write("a.txt", "two")
    assert elsewhere.read_text() == "one"
    assert (tmp_path / "a.txt.set-aside-1").is_symlink()


def test_leftovers_of_a_killed_process_go_and_those_of_others_stay(tmp_path, write):
    process = start(tmp_path)
    process.kill()
    process.wait()
    sub = tmp_path / "sub"
    assert len(list(sub.iterdir())) == 1
    (sub / ".a.txt.1234.part").write_text("mine")
    write("b.txt", "next")
    assert [path.name for path in sub.iterdir()] == [".a.txt.1234.part"]


def test_an_error_leaves_what_was_there(tmp_path, write):
    path = write("a.txt", "one")

    def fail_half_way():
        with made.opened(tmp_path, "test") as files, files.writing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "one"
    assert sorted(os.listdir(tmp_path)) == [".xkd-test.jsonl", "a.txt"]


def test_one_process_at_a_time(tmp_path, write):
    process = start(tmp_path)
    with pytest.raises(UserError, match="another `xkd test` is at work here"):
        write("b.txt", "mine")
    process.send_signal(signal.SIGKILL)
    process.wait()
    write("b.txt", "mine")


def test_a_file_system_without_locks_is_named(tmp_path, write, monkeypatch, capsys):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    assert write("a.txt", "one").exists()
    assert "stands for a lock, which this file system does not have" in capsys.readouterr().err


def test_a_line_cut_off_by_a_kill_costs_no_other(tmp_path, write):
    write("a.txt", "one")
    journal = tmp_path / ".xkd-test.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"path": "b.t')
    write("c.txt", "two")
    with made.opened(tmp_path, "test") as files:
        assert sorted(files.listed) == ["a.txt", "c.txt"]


def test_a_journal_from_elsewhere_reaches_nothing_outside_its_folder(tmp_path):
    folder, mine = tmp_path / "folder", tmp_path / "mine"
    folder.mkdir()
    mine.mkdir()
    (mine / "a.txt").write_text("mine")
    (folder / ".xkd-test.jsonl").write_text(f'{{"part": "../mine"}}\n{{"part": "{mine}"}}\n[1]\n{{"part": 3}}\n7\n')
    with made.opened(folder, "test") as files:
        assert files.listed == {}
    assert (mine / "a.txt").exists()


def test_other_processes_append_to_the_same_journal(tmp_path):
    with made.opened(tmp_path, "test") as files:
        sent = pickle.loads(pickle.dumps(files.about(["a.txt"])))
        with sent.writing(tmp_path / "a.txt") as temporary, replacing(temporary) as inner:
            inner.write_text("one")
    with made.opened(tmp_path, "test") as files:
        assert files.has(tmp_path / "a.txt")
    assert made.listed_by("test", [tmp_path / "a.txt", tmp_path / "b.txt"]) == {tmp_path / "a.txt"}
