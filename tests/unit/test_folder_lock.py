"""A folder belongs to one process, the refused one hears to which, and no death of a process keeps it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flight_replica.errors import ConfigError
from flight_replica.folder_lock import FolderLock

HOLD = """
import sys
from pathlib import Path
from flight_replica.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "folder x")
print("held", flush=True)
sys.stdin.read()
"""


def holder(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_refused_one_hears_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process:
        with pytest.raises(ConfigError) as found:
            FolderLock(tmp_path / "lock", "folder x")
        holder_text = f"pid {process.pid} on host {socket.gethostname()} since 20"
        assert str(found.value).startswith(f"folder x is in use by another process: {holder_text}")
        process.kill()
        process.wait()
        FolderLock(tmp_path / "lock", "folder x").release()


def test_a_released_one_is_free_and_names_nobody(tmp_path: Path) -> None:
    first = FolderLock(tmp_path / "lock", "x")
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    first.release()
    assert (tmp_path / "lock").read_text() == ""
    FolderLock(tmp_path / "lock", "x").release()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "x"}', "x" * 10_000, '{"pid": 1, "host": null}'])
def test_whatever_stands_in_the_file_the_error_is_one(tmp_path: Path, text: str) -> None:
    lock = FolderLock(tmp_path / "lock", "x")
    (tmp_path / "lock").write_text(text)
    with pytest.raises(ConfigError, match=r"x is in use by another process$"):
        FolderLock(tmp_path / "lock", "x")
    lock.release()


def test_a_folder_that_cannot_be_locked_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder x can't be used: No such file"):
        FolderLock(tmp_path / "gone" / "lock", "folder x")
