"""How a process begins to log, and how loud it is. Everything goes to stderr through one handler."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from enum import StrEnum
from types import TracebackType
from typing import IO, Any

from flight_replica.logs.formats import HumanFormat, JsonFormat, one_line

OURS = "flight_replica"
LEVELS = ("debug", "info", "warning", "error")
_HARMLESS_LEVEL = logging.WARNING  # of libraries: below it some of them write headers and signatures

logger = logging.getLogger(__name__)


class LogFormat(StrEnum):
    HUMAN = "human"
    JSON = "json"


def start_logging(
    level: str = "info", format: LogFormat = LogFormat.HUMAN, stream: IO[str] | None = None
) -> None:
    """Log to `stream` (None: stderr), also what ends a thread, and warnings. `level`: one of `LEVELS`.

    A program that logs already, and uses this one as a library, goes on in its own way.
    """
    if logging.getLogger().handlers:
        return
    set_level(level)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_formatter(format))
    logging.getLogger().addHandler(handler)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned


def set_level(level: str) -> None:
    """The least severe events of ours that are logged. Libraries stay at warnings, for what they'd tell."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(OURS).setLevel(number)
    logging.getLogger().setLevel(max(number, _HARMLESS_LEVEL))


def set_format(format: LogFormat) -> None:
    """How events are written from now on, where `start_logging` has begun."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, HumanFormat | JsonFormat):
            handler.setFormatter(_formatter(format))


def _formatter(format: LogFormat) -> logging.Formatter:
    return JsonFormat() if format is LogFormat.JSON else HumanFormat()


def level() -> str:
    """The level that `set_level` set, by its name."""
    return logging.getLevelName(logging.getLogger(OURS).getEffectiveLevel()).lower()


def report_failure(error: BaseException) -> None:
    """Say why a command fails, in one line on stderr: as an event where the log is JSON, else as text."""
    handlers = logging.getLogger().handlers
    if any(isinstance(handler.formatter, JsonFormat) for handler in handlers):
        logger.error("failed error=%s", error)
    else:
        print(f"flight-replica: {one_line(str(error))}", file=sys.stderr, flush=True)


def report_fault(error: Exception) -> None:
    """The same for an error that nobody foresaw; its traceback, for who mends it, goes to the log."""
    logger.error("ended by an error nobody foresaw kind=%s", type(error).__name__, exc_info=error)
    report_failure(error)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is SystemExit:
        return
    name = failed.thread.name if failed.thread is not None else "?"
    logger.error("thread failed thread=%s", name, exc_info=_info(failed.exc_value, failed.exc_traceback))


def _unraisable(found: Any) -> None:  # typing has no public name for what it gets
    what = getattr(found.object, "__qualname__", type(found.object).__name__)
    logger.error(
        "error nobody could hear where=%s", what, exc_info=_info(found.exc_value, found.exc_traceback)
    )


def _info(
    error: BaseException | None, trace: TracebackType | None
) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    return None if error is None else (type(error), error, trace)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    logger.warning("warned kind=%s file=%s line=%d text=%s", category.__name__, filename, lineno, message)
