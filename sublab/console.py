"""What a person sees: progress of long work, lines, tables."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# Where there is no terminal: seconds between two lines, and the share of the time so far. A log of
# an hour is then as long as one of minutes.
_LINE_EVERY, _LINE_SHARE = 2.0, 0.1
# Share of the work before which the time that is left cannot be told: starting took most of it.
_TELLING = 0.01
_MINUTE, _HOUR = 60, 3600

Advance = Callable[[int, str], None]


def say(line: str) -> None:
    """One line for the person who waits, on the error stream."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, already: int = 0) -> Iterator[Advance]:
    """Gives advance(done, text), to be called with the amount done and a line on what it was.

    Args:
        total: amount of the whole work, in any unit.
        already: amount of it that was done before and costs no time now.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=total, completed=already)
            yield lambda done, text: bar.update(task, completed=done, description=text)
        return
    start = time.monotonic()
    last = -_LINE_EVERY

    def advance(done: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < max(_LINE_EVERY, _LINE_SHARE * (now - start)) and done < total:
            return
        last = now
        share = (done - already) / max(1, total - already)
        rest = ""
        if _TELLING <= share < 1:
            rest = f", about {duration((now - start) * (1 - share) / share)} left"
        say(f"[{now - start:5.0f} s] {100 * done // max(1, total):3d} %  {text}{rest}")

    yield advance


def duration(seconds: float) -> str:
    """A time as a person says it: in seconds, minutes or hours."""
    if seconds < 1.5 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


def new_table(words: list[str], numbers: list[str]) -> Table:
    """An empty table: columns of words to the left, columns of numbers to the right."""
    table = Table()
    for name in words:
        # Of a word that is wider than its column nothing may be lost: it may be what is said.
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", overflow="fold")
    return table


def print_table(title: str, table: Table) -> None:
    """A table under its title."""
    # A pipe has no width of its own; the table must not be folded there.
    console = Console()
    console = console if console.is_terminal else Console(width=150)
    if title:
        console.print(title)
    console.print(table)
