"""Progress goes to standard error, in lines where there is no terminal."""

import sys

import pytest

from mutbert import progress
from mutbert.progress import amount_text, duration_text, progress_bar, with_rate


def test_nothing_is_shown_unless_wanted(capsys):
    with progress_bar("Work", 10, show=False) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_lines_say_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    with progress_bar("Work", 4_000_000, unit="bytes") as advance:
        advance(1_000_000)
        advance(3_000_000)
    printed = capsys.readouterr()
    assert printed.out == ""
    first, *_, last = printed.err.splitlines()
    assert first.startswith("Work: 1.0 MB of 4.0 MB (25 %), after 0 s, about 0 s left")
    assert last.startswith("Work: 4.0 MB of 4.0 MB (100 %), after 0 s")


def test_lines_are_far_apart(capsys):
    with progress_bar("Work", None, unit="sites") as advance:
        for _ in range(1000):
            advance(1)
    assert capsys.readouterr().err.splitlines() == ["Work: 1,000 sites, after 0 s"]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for unit in ("bytes", "sites", ""):
        with progress_bar("Work", 10, unit=unit) as advance:
            advance(10)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Work" in printed.err
    assert "100%" in printed.err


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (999, "bytes", "999 B"),
        (1500, "bytes", "1.5 kB"),
        (2.5e9, "bytes", "2.5 GB"),
        (7e15, "bytes", "7000.0 TB"),
        (1200, "windows", "1,200 windows"),
        (5, "", "5"),
    ],
)
def test_amounts_are_for_people(amount, unit, text):
    assert amount_text(amount, unit) == text


def test_the_rate_is_that_of_all_so_far_and_gives_way_to_other_notes(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    told = []
    advance = with_rate(lambda amount, /, note="": told.append((amount, note)), "bases")
    for now, amount, note in ((102.0, 3000, ""), (104.0, 1000, ""), (104.0, 1, "slow"), (500.0, 0, "")):  # noqa: B007
        advance(amount, note)
    assert told == [(3000, "1,500 bases/s"), (1000, "1,000 bases/s"), (1, "slow"), (0, "10.0 bases/s")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (7290, "2 h 2 min"),
        (4e6, "1,111 h 7 min"),
    ],
)
def test_durations_are_for_people(seconds, text):
    assert duration_text(seconds) == text


def test_what_is_left_is_said_in_hours(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress_bar("Work", 1000, unit="bases") as advance:
        now[0] = 600.0
        advance(100)
    assert "after 10 min, about 1 h 30 min left" in capsys.readouterr().err.splitlines()[0]
