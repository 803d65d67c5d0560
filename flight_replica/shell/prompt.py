"""`Prompt`: where a person types: several lines until `;`, history, completion."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

from flight_replica.errors import ReplicaError
from flight_replica.shell.statements import split
from flight_replica.shell.words import Names, completions

__all__ = ["Prompt"]

COMMANDS = [".describe", ".format", ".help", ".output", ".quit", ".tables", ".timing"]
FORMAT_WORDS = ["table", "csv", "json", "jsonl", "parquet", "arrow"]
HISTORY_FILE = "flight-replica/history"
# Lines that are kept out of the history: what looks like a secret, and what begins with a blank.
_PRIVATE = re.compile(r"\s|.*(password|passwd|secret|token|credential|api_?key)", re.IGNORECASE | re.DOTALL)


class Prompt:
    """Asks for input at the terminal. For the main thread."""

    def __init__(self, load_names: Callable[[], Names]) -> None:
        """`load_names` is called again in a thread of its own, after `forget_names`."""
        self._names = _LoadedNames(load_names)
        self._session: PromptSession[str] = PromptSession(
            "sql> ",
            multiline=True,
            prompt_continuation=lambda width, number, is_soft_wrap: "...> ",
            history=_history(),
            completer=_Words(self._names),
            complete_while_typing=False,
            key_bindings=_bindings(),
            color_depth=ColorDepth.DEPTH_1_BIT if "NO_COLOR" in os.environ else None,
            enable_open_in_editor=False,
        )

    def load_names(self) -> Names:
        """The names, loaded now. Raises what the loading raises."""
        return self._names.load()

    def ask(self) -> str:
        """What was typed. Raises `KeyboardInterrupt` at Ctrl-C, `EOFError` at Ctrl-D on an empty line."""
        self._names.refresh()
        return self._session.prompt()

    def forget_names(self) -> None:
        self._names.forget()


def _bindings() -> KeyBindings:
    """Enter ends the input when a statement, or a command, is whole."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text
        if is_whole(text):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return bindings


def is_whole(text: str) -> bool:
    """Whether nothing is missing: a command, nothing at all, or statements that all end with `;`."""
    if not text.strip() or text.lstrip().startswith((".", "\\")):
        return True
    found, rest = split(text)
    return bool(found) and not rest


class _LoadedNames:
    """The server's names, loaded again in the background; what was known stays until then. Thread-safe."""

    def __init__(self, load: Callable[[], Names]) -> None:
        self._load = load
        self._is_stale = True
        self._thread: threading.Thread | None = None
        self.now = Names()

    def load(self) -> Names:
        self.now = self._load()
        self._is_stale = False
        return self.now

    def refresh(self) -> None:
        if self._is_stale and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="names", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        self._is_stale = True

    def _run(self) -> None:
        with suppress(ReplicaError):  # the next statement says it; there is nothing to complete meanwhile
            self.load()


class _Words(Completer):
    def __init__(self, names: _LoadedNames) -> None:
        self._names = names

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        command, blank, word = text.partition(" ")
        if command.startswith(".") and not blank:
            found = [(name, len(command), "command") for name in COMMANDS if name.startswith(command)]
        elif command == ".format":
            found = [(name, len(word), "format") for name in FORMAT_WORDS if name.startswith(word)]
        elif command in (".describe", "\\d"):
            found = list(completions(f"from {word}", self._names.now))
        else:
            found = list(completions(text, self._names.now, document.text_after_cursor))
        for name, length, what in found:
            yield Completion(name, -length, display_meta=what)


class _PublicHistory(FileHistory):
    """A file that only its owner reads, without what looks like a secret."""

    def store_string(self, string: str) -> None:
        if not _PRIVATE.match(string):
            super().store_string(string)


def _history() -> History:
    """In the user's state folder; in memory where that can't be written."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / HISTORY_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return _PublicHistory(str(path))
