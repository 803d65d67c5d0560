"""`Progress`: how far long work is, on stderr. A bar when a person watches, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

__all__ = ["Progress", "counting", "progress"]

LINE_SECONDS = 10.0  # between lines where nobody watches


class Progress(Protocol):
    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` steps are done now."""
        ...


@contextmanager
def progress(what: str, err: TextIO | None = None) -> Iterator[Progress]:
    """Reports to call while work is done; the bar is gone after the block. `NO_COLOR` is honoured."""
    err = err or sys.stderr
    if not err.isatty():
        yield _lines(what, err)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(file=err), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def counting(
    what: str, *, is_shown: bool = True, err: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """The same for rows whose number isn't known before: shown to a person who watches, if it is to be."""
    err = err or sys.stderr
    if not is_shown or not err.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed} rows", markup=False))
    with Bars(*columns, TimeElapsedColumn(), console=Console(file=err), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda rows: bars.update(task, completed=rows)


def _lines(what: str, err: TextIO) -> Progress:
    said_at = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_SECONDS and done < total:
            said_at = time.monotonic()
            print(f"{what}: {done} of {total}", file=err, flush=True)

    return say
