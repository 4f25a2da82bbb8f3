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

# Seconds between two lines where there is no terminal.
_LINE_EVERY = 2.0

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
        if now - last < _LINE_EVERY and done < total:
            return
        last = now
        left = (total - done) * (now - start) / max(1, done - already)
        rest = f", about {left:.0f} s left" if done < total else ""
        say(f"[{now - start:5.0f} s] {100 * done // max(1, total):3d} %  {text}{rest}")

    yield advance


def new_table(words: list[str], numbers: list[str]) -> Table:
    """An empty table: columns of words to the left, columns of numbers to the right."""
    table = Table(*words)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def print_table(title: str, table: Table) -> None:
    """A table under its title."""
    # A pipe has no width of its own; the table must not be folded there.
    console = Console()
    console = console if console.is_terminal else Console(width=150)
    if title:
        console.print(title)
    console.print(table)
