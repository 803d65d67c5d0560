"""`Workspace`: whose folder it is, what it leaves, and that every session of it runs at UTC."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flight_replica.errors import ConfigError
from flight_replica.state.workspace import Workspace

_HOLD = """
import sys
from pathlib import Path
from flight_replica.state.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""
_ZONE = """
from flight_replica.state.workspace import Workspace
workspace = Workspace()
session = workspace.session()
print(session.sql("SELECT current_setting('TimeZone'), '2024-03-10 02:30:00+00'::TIMESTAMPTZ::VARCHAR").fetchall()[0])
workspace.close()
"""  # noqa: E501


def test_every_session_runs_at_utc_whatever_the_host_says() -> None:
    environment = {**os.environ, "TZ": "America/New_York"}
    found = subprocess.run([sys.executable, "-c", _ZONE], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == "('UTC', '2024-03-10 02:30:00+00')", found.stderr


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(ConfigError, match="in use by another process"):
            Workspace(tmp_path / "data")
        holder.kill()
        holder.communicate()
    Workspace(tmp_path / "data").close()  # a killed process leaves no lock


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        Workspace(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_what_an_earlier_process_left_is_removed(tmp_path: Path) -> None:
    Workspace(tmp_path / "data").close()
    left = tmp_path / "data" / "states" / "000007"
    left.mkdir(parents=True)
    workspace = Workspace(tmp_path / "data")
    assert not left.exists()
    workspace.close()


def test_a_temporary_folder_goes_with_the_workspace() -> None:
    workspace = Workspace()
    assert workspace.directory.is_dir()
    workspace.close()
    assert not workspace.directory.exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be used"):
        Workspace(tmp_path / "file" / "data")


def test_temporary_folders_of_killed_processes_are_removed_and_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "flight-replica-left"
    left.mkdir()
    (left / "flight-replica.lock").touch()
    os.utime(left, (0, 0))
    other = tmp_path / "flight-replica-other"
    other.mkdir()
    used = Workspace()
    again = Workspace()
    assert not left.exists()
    assert {other, used.directory, again.directory} == set(tmp_path.iterdir())
    used.close()
    again.close()
