"""The command line's `completion`: a script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Callable

SHELLS = ("bash", "zsh", "fish")
_HELP = """Prints a script that lets a shell complete this command line. For the running shell:
eval "$(flight-replica completion bash)" """


def add_completion_command(
    parser: argparse.ArgumentParser, whole: Callable[[], argparse.ArgumentParser]
) -> None:
    """The options of `completion`; `whole` makes the parser of all commands."""
    parser.description = _HELP
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=lambda options: _print(options.shell, whole()))


def _print(shell: str, parser: argparse.ArgumentParser) -> int:
    import shtab

    complete_files(parser)
    print(shtab.complete(parser, shell))
    return 0


def complete_files(parser: argparse.ArgumentParser) -> None:
    """Let what is a path be completed as one, in every command."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                complete_files(command)
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
