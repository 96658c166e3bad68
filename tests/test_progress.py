"""Progress goes to standard error, in lines where there is no terminal."""

import sys

from mutbert.progress import progress_bar


def test_nothing_is_shown_unless_wanted(capsys):
    with progress_bar("Work", 10, show=False) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_short_work_is_one_line_in_a_log(capsys):
    with progress_bar("Work", 4_000_000, unit="bytes") as advance:
        for _ in range(1000):
            advance(4_000, note="loss 0.5")
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("Work: 4.00M of 4.00MB (100 %) in 00:0")
    assert line.endswith("/s, loss 0.5")


def test_work_of_unknown_size_is_counted(capsys):
    with progress_bar("Work", None, unit="sites") as advance:
        advance(1000)
    assert capsys.readouterr().err.startswith("Work: 1000 sites in 00:0")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for unit in ("bytes", "sites", ""):
        with progress_bar("Work", 10, unit=unit) as advance:
            advance(10)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("100%") >= 3
