"""`flight-replica completion`: real shells complete commands, options and files by the script."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from flight_replica.cli import main
from flight_replica.completion_command import SHELLS


def script(shell: str) -> str:
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["completion", shell]) == 0
    return said.getvalue()


def in_bash(folder: Path, *words: str) -> Sequence[str]:
    """What bash offers for the last word."""
    (folder / "completion").write_text(script("bash"))
    asked = " ".join(f"'{word}'" for word in words)
    program = f"""
        source ./completion
        function=$(complete -p flight-replica | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=(flight-replica {asked}); COMP_CWORD={len(words)}
        COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
        "$function" flight-replica '{words[-1]}' '{words[-2] if len(words) > 1 else "flight-replica"}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-u", "-c", program], cwd=folder, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(tmp_path: Path) -> None:
    (tmp_path / "report.sql").touch()
    assert in_bash(tmp_path, "ver") == ["verify"]
    assert {"serve", "sql", "primary", "completion"} <= set(in_bash(tmp_path, ""))
    assert in_bash(tmp_path, "sql", "--form") == ["--format"]
    assert in_bash(tmp_path, "sql", "--format", "par") == ["parquet"]
    assert in_bash(tmp_path, "sql", "--file", "rep") == ["report.sql"]
    assert in_bash(tmp_path, "completion", "z") == ["zsh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    text = script(shell)
    assert "verify" in text and "--other-ca" in text
    if program is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "completion").write_text(text)
    option = "--no-execute" if shell == "fish" else "-n"
    subprocess.run([program, option, str(tmp_path / "completion")], timeout=30, check=True)


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "dos"])
    assert "'dos'" in capsys.readouterr().err
