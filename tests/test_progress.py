"""Progress in log files: few lines, with the share done and the time left."""

import pytest

from xkd import progress


@pytest.fixture
def clock(monkeypatch):
    """Time that the test moves on."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def _lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_about_every_tenth_with_the_time_left(clock, capsys):
    seen = []
    for item in progress.track(range(100), "clips"):
        clock[0] += 6
        seen.append(item)
    assert seen == list(range(100))
    shown = _lines(capsys)
    assert len(shown) == 10
    assert shown[0] == "clips: 10 % (10/100), 0.2/s, 9:00 left"
    assert shown[-1] == "clips: 100 % (100/100) in 10:00"


def test_quick_work_is_one_line(clock, capsys):
    list(progress.track(range(1000), "clips"))
    assert _lines(capsys) == ["clips: 100 % (1000/1000) in 0:00"]


def test_unknown_length(clock, capsys):
    for _ in progress.track(iter(range(3)), "blocks"):
        clock[0] += 3600
    assert _lines(capsys)[-1] == "blocks: 3 done in 3:00:00"


def test_given_total(clock, capsys):
    list(progress.track((n for n in range(4)), "epochs", total=4))
    assert _lines(capsys) == ["epochs: 100 % (4/4) in 0:00"]


def test_bar_on_a_terminal_yields_everything(monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.track(range(5), "clips")) == list(range(5))
