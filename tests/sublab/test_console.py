"""Claims about what a person sees of long work."""

import pytest

from sublab import console


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89.0, "89 s"),
        (91.0, "2 min"),
        (5399.0, "90 min"),
        (5401.0, "1.5 h"),
        (108170.0, "30.0 h"),
    ],
)
def test_a_duration_is_in_the_unit_in_which_a_person_says_it(seconds, text):
    assert console.duration(seconds) == text


def test_time_left_is_told_from_a_hundredth_on_and_of_what_was_done_now(monkeypatch, capsys):
    now = iter([0.0, 70.0, 80.0, 100.0, 400.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.progress(1500, 500) as advance:
        # Compiling took the minute, and says nothing of the 999 others.
        advance(501, "first")
        advance(600, "some")
        advance(750, "more")
        advance(1500, "all")
    assert capsys.readouterr().err.splitlines() == [
        "[   70 s]  33 %  first",
        "[   80 s]  40 %  some, about 12 min left",
        "[  100 s]  50 %  more, about 5 min left",
        "[  400 s] 100 %  all",
    ]


def test_a_log_of_an_hour_has_few_lines(monkeypatch, capsys):
    now = iter([0.0, *map(float, range(1, 3601))])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.progress(3600) as advance:
        for second in range(1, 3601):
            advance(second, "work")
    lines = capsys.readouterr().err.splitlines()
    assert 40 < len(lines) < 90
    assert lines[-1] == "[ 3600 s] 100 %  work"


def test_a_narrow_terminal_loses_no_part_of_a_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, a terminal
    table = console.new_table(["condition"], ["mean", "low", "high"])
    table.add_row("cross-model,", "0.123456789", "0.1", "0.2")
    console.print_table("", table)
    shown = capsys.readouterr().out.splitlines()
    cells = [line.split("│")[1:3] for line in shown if line.startswith("│")]
    assert len(cells) > 1
    words, numbers = (
        "".join(cell.strip() for cell in column) for column in zip(*cells, strict=True)
    )
    assert (words, numbers) == ("cross-model,", "0.123456789")
