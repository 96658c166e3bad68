"""Progress goes to standard error, in lines where there is no terminal."""

import pytest

from mutbert.progress import progress_bar


@pytest.mark.parametrize(
    ("total", "settings", "start", "end"),
    [
        (10, {"show": False}, "", ""),
        (4_000_000, {"unit": "bytes"}, "Work: 4.00M of 4.00MB (100 %) in 00:0", "/s, loss 0.5\n"),
        (None, {"unit": "sites", "work": "all"}, "Work: all\nWork: 4000000 sites in 00:0", " sites/s, loss 0.5\n"),
    ],
)
def test_short_work_is_one_line_in_a_log(capsys, total, settings, start, end):
    with progress_bar("Work", total, **settings) as advance:
        for _ in range(3000):
            advance(4_000 / 3, note="loss 0.5")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(start)
    assert printed.err.endswith(end)
    assert printed.err.count("\n") == bool(start) + start.count("\n")
    assert "  " not in printed.err
