"""Downloads against a real server on this machine, with everything that goes wrong on the way."""

import hashlib
import json
import os
import shutil
from collections import namedtuple

import pytest
from file_server import serving

from xkd.data.sources import fetch
from xkd.data.sources.fetch import LOCK, Remote, fetch_all
from xkd.errors import UserError

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Address, faults and folder of a server that has big.bin and small.bin; retries do not wait."""
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.01)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "big.bin").write_bytes(CONTENT)
    (folder / "small.bin").write_bytes(b"small")
    with serving(folder) as (address, faults):
        yield address, faults, folder


def remotes(address, *names, checksum=""):
    return [Remote(f"{address}/{name}", name, checksum) for name in names]


def test_files_come_once_and_are_recorded(site, tmp_path):
    address, faults, _ = site
    out = tmp_path / "out"
    paths = fetch_all(remotes(address, "big.bin", "small.bin"), out, connections=2)
    assert [path.read_bytes() for path in paths] == [CONTENT, b"small"]
    lock = json.loads((out / LOCK).read_text())
    assert lock["big.bin"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert lock["big.bin"]["size"] == len(CONTENT)
    asked = len(faults.asked)
    fetch_all(remotes(address, "big.bin", "small.bin"), out, connections=2)
    assert len(faults.asked) == asked
    assert sorted(path.name for path in out.iterdir()) == [LOCK, "big.bin", "small.bin"]


def test_a_server_that_dies_is_resumed_where_it_stopped(site, tmp_path):
    address, faults, _ = site
    faults.cut["big.bin"] = [1_000_000, 500_000]
    (path,) = fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)
    assert path.read_bytes() == CONTENT
    assert faults.sent["big.bin"] <= len(CONTENT) + 2 * fetch.BLOCK  # no more than the last block twice
    begins = [int((begin or "bytes=0-")[6:-1]) for _, begin in faults.asked]
    assert begins[0] == 0
    assert all(at - 2 * fetch.BLOCK <= b <= at for b, at in zip(begins[1:], (1_000_000, 1_500_000), strict=True))


def test_an_interrupted_download_goes_on_in_the_next_call(site, tmp_path):
    address, faults, _ = site
    faults.cut["big.bin"] = [700_000] + [0] * fetch.TRIES
    with pytest.raises(UserError, match="cannot be fetched.*Run again to go on"):
        fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)
    assert 700_000 - fetch.BLOCK <= (tmp_path / "out" / "big.bin.part").stat().st_size <= 700_000
    faults.cut.clear()
    (path,) = fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)
    assert path.read_bytes() == CONTENT
    assert faults.sent["big.bin"] <= len(CONTENT) + fetch.BLOCK


def test_a_file_that_was_replaced_meanwhile_starts_again(site, tmp_path):
    address, faults, folder = site
    faults.cut["big.bin"] = [700_000] + [0] * fetch.TRIES
    with pytest.raises(UserError):
        fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)
    faults.cut.clear()
    other = os.urandom(2_000_000)
    (folder / "big.bin").write_bytes(other)
    (path,) = fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)
    assert path.read_bytes() == other


def test_a_server_without_ranges_sends_everything_again(site, tmp_path):
    address, faults, _ = site
    faults.cut["big.bin"], faults.no_ranges = [700_000], {"big.bin"}
    (path,) = fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)
    assert path.read_bytes() == CONTENT


def test_busy_servers_are_asked_again_and_missing_files_are_not(site, tmp_path):
    address, faults, _ = site
    faults.status["small.bin"] = [503, 500, 429]
    (path,) = fetch_all(remotes(address, "small.bin"), tmp_path / "out", 1)
    assert path.read_bytes() == b"small"
    assert len(faults.asked) == 4
    with pytest.raises(UserError, match=r"gone\.bin: cannot be fetched \(404"):
        fetch_all(remotes(address, "gone.bin"), tmp_path / "out", 1)
    assert len(faults.asked) == 4


def test_wrong_checksum_is_refused_and_the_file_kept_aside(site, tmp_path):
    address, _, _ = site
    with pytest.raises(UserError, match="md5 is .*, published is 0123"):
        fetch_all(remotes(address, "small.bin", checksum="md5:0123"), tmp_path / "out", 1)
    assert (tmp_path / "out" / "small.bin.wrong").read_bytes() == b"small"
    assert not (tmp_path / "out" / "small.bin").exists()
    right = f"md5:{hashlib.md5(b'small').hexdigest()}"
    (path,) = fetch_all(remotes(address, "small.bin", checksum=right), tmp_path / "out", 1)
    assert path.read_bytes() == b"small"


def test_what_came_first_must_come_again(site, tmp_path):
    address, _, folder = site
    fetch_all(remotes(address, "small.bin"), tmp_path / "out", 1)
    (tmp_path / "out" / "small.bin").unlink()
    (folder / "small.bin").write_bytes(b"other")
    with pytest.raises(UserError, match="recorded at first download.*delete its entry"):
        fetch_all(remotes(address, "small.bin"), tmp_path / "out", 1)


def test_files_put_there_by_hand_are_verified_not_fetched(site, tmp_path):
    address, faults, _ = site
    out = tmp_path / "out"
    out.mkdir()
    (out / "big.bin").write_bytes(CONTENT)
    fetch_all(remotes(address, "big.bin"), out, 1)
    assert not faults.asked
    assert json.loads((out / LOCK).read_text())["big.bin"]["size"] == len(CONTENT)


def test_one_missing_file_stops_the_others_and_keeps_what_is_complete(site, tmp_path):
    address, _, folder = site
    for number in range(8):
        (folder / f"{number}.bin").write_bytes(CONTENT)
    names = [f"{number}.bin" for number in range(8)]
    (folder / "5.bin").unlink()
    with pytest.raises(UserError, match=r"5\.bin: cannot be fetched \(404"):
        fetch_all(remotes(address, *names), tmp_path / "out", 2)
    (folder / "5.bin").write_bytes(CONTENT)
    assert all(path.read_bytes() == CONTENT for path in fetch_all(remotes(address, *names), tmp_path / "out", 2))


def test_space_is_checked_before_and_said_when_it_ends(site, tmp_path, monkeypatch):
    address, faults, _ = site
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 5_000_000, 5_000_000))
    with pytest.raises(UserError, match=r"needs 0\.0 GB.*are free"):
        fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1, factor=2.0)
    assert not faults.asked
    fetch_all(remotes(address, "small.bin"), tmp_path / "out", 1, factor=2.0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_transfer", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        fetch_all(remotes(address, "big.bin"), tmp_path / "out", 1)


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.001)
    with pytest.raises(UserError, match="cannot be fetched.*Connection refused.*datasets.<name>.source"):
        fetch_all(remotes("http://127.0.0.1:9", "x.bin"), tmp_path / "out", 1)
