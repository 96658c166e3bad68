"""Progress goes to standard error, in lines where there is no terminal."""

import sys

import pytest

from mutbert import progress
from mutbert.progress import amount_text, progress_bar


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
