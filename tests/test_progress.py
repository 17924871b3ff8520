"""Progress in log files is a few lines with the share done and the time left."""

import pytest

from xkd import progress


@pytest.fixture
def clock(monkeypatch):
    """Returns the time, which the test advances."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def _lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_the_time_left_as_soon_as_it_is_known_then_a_line_about_every_tenth(clock, capsys):
    seen = []
    for item in progress.track(range(100), "clips"):
        clock[0] += 6
        seen.append(item)
    assert seen == list(range(100))
    shown = _lines(capsys)
    assert shown[0] == "clips: 2% 2/100 in 0:00:12 left: 0:09:48"
    assert shown[1] == "clips: 10% 10/100 in 0:01:00 left: 0:09:00"
    assert len(shown) == 11
    assert shown[-1] == "clips: 100% 100/100 in 0:10:00 left: 0:00:00"


def test_start_up_time_does_not_distort_the_time_left(clock, capsys):
    with progress.counter("clips", total=100) as advance:
        clock[0] += 600
        for _ in range(50):
            advance(1)
            clock[0] += 3
    assert _lines(capsys)[0] == "clips: 2% 2/100 in 0:10:03 left: 0:04:54"


def test_items_done_before_count_as_done_but_not_for_the_speed(clock, capsys):
    with progress.counter("steps", total=100, done=80) as advance:
        for _ in range(20):
            advance(1)
            clock[0] += 10
    shown = _lines(capsys)
    assert shown[0] == "steps: 82% 82/100 in 0:00:10 left: 0:03:00"
    assert shown[-1] == "steps: 100% 100/100 in 0:03:10 left: 0:00:00"


def test_long_work_is_never_silent_for_long(clock, capsys):
    with progress.counter("steps", total=10_000) as advance:
        for _ in range(100):
            advance(1)
            clock[0] += 60
    assert len(_lines(capsys)) >= 20


def test_hours_of_media_beside_the_clips_they_are_cut_into(clock, capsys):
    with progress.counter("clips", total=1800, done=900, seconds=4.0) as advance:
        advance(450)
    assert _lines(capsys)[-1].startswith("clips: 75% 1350/1800 (1.50/2.00 h of media) in ")


def test_bytes(clock, capsys):
    with progress.meter("download", total=30_000_000) as advance:
        for _ in range(3):
            advance(10_000_000)
            clock[0] += 5
    assert _lines(capsys) == [
        "download: 67% 20.0/30.0 MB 2.0 MB/s in 0:00:05 left: 0:00:05",
        "download: 100% 30.0/30.0 MB 2.0 MB/s in 0:00:10 left: 0:00:00",
    ]


def test_quiet_hides_progress_and_remarks_and_verbose_shows_details(clock, capsys):
    shown = {}
    for level in ("quiet", "normal", "verbose"):
        progress.set_level(level)
        assert list(progress.track(range(2), "clips")) == [0, 1]
        progress.say("remark")
        progress.detail("detail")
        shown[level] = _lines(capsys)
    progress.set_level("normal")
    bar = "clips: 100% 2/2 in 0:00:00 left: 0:00:00"
    assert shown == {"quiet": [], "normal": [bar, "remark"], "verbose": [bar, "remark", "xkd: detail"]}


def test_quick_work_is_one_line(clock, capsys):
    list(progress.track(range(1000), "clips"))
    assert _lines(capsys) == ["clips: 100% 1000/1000 in 0:00:00 left: 0:00:00"]


def test_unknown_length(clock, capsys):
    for _ in progress.track(iter(range(3)), "blocks"):
        clock[0] += 3600
    assert _lines(capsys)[-1] == "blocks: 0.0 it/s 3/? in 3:00:00"


def test_given_total(clock, capsys):
    list(progress.track((n for n in range(4)), "epochs", total=4))
    assert _lines(capsys) == ["epochs: 100% 4/4 in 0:00:00 left: 0:00:00"]


def test_bar_on_a_terminal_yields_everything(monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.track(range(5), "clips")) == list(range(5))
