"""What is shipped: the same files every time, all that is needed, and nothing of the tests.

These tests build, and install from the package registry, so they run by `make test-dist` alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from flight_replica.schema import __file__ as _a_module

pytestmark = pytest.mark.dist

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(_a_module).parent
BUILD_SECONDS = 300.0
INSTALL_SECONDS = 900.0
DEMO_SECONDS = 180.0
# Nothing of this tree, nor of the environment of the tests, may help what was installed.
BARE = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FLIGHT_REPLICA"))
}


def run(*command: str | Path, cwd: Path, timeout_seconds: float) -> str:
    """What a command prints. Fails the test when the command fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=BARE,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def built(folder: Path, *options: str, source: Path = ROOT) -> dict[str, Path]:
    """What `python -m build` makes, by the end of its name."""
    run(
        *(sys.executable, "-m", "build", *options, "--outdir", folder, source),
        cwd=folder,
        timeout_seconds=BUILD_SECONDS,
    )
    return {path.suffix: path for path in folder.iterdir()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel, built from the sdist, and the sdist."""
    return built(tmp_path_factory.mktemp("dist"))


def test_a_second_build_gives_the_same_bytes(shipped: dict[str, Path], tmp_path: Path) -> None:
    again = built(tmp_path)
    assert {end: digest(path) for end, path in again.items()} == {
        end: digest(path) for end, path in shipped.items()
    }


def test_the_sdist_gives_the_wheel_that_the_tree_gives(shipped: dict[str, Path], tmp_path: Path) -> None:
    assert digest(built(tmp_path, "--wheel")[".whl"]) == digest(shipped[".whl"])


def test_the_wheel_holds_every_file_of_the_package_and_no_other(shipped: dict[str, Path]) -> None:
    with zipfile.ZipFile(shipped[".whl"]) as wheel:
        names = set(wheel.namelist())
    metadata = {name for name in names if re.match(r"flight_replica-[\d.]+\.dist-info/", name)}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names - metadata == there
    assert {"flight_replica/py.typed", "flight_replica/_pb/feed_pb2.py"} <= names


def test_the_sdist_holds_nothing_of_the_tests(shipped: dict[str, Path]) -> None:
    with tarfile.open(shipped[".gz"]) as sdist:
        tops = {name.split("/")[1] for name in sdist.getnames()}
    assert "tests" not in tops and "benchmarks" not in tops
    assert {"flight_replica", "proto", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= tops


def test_the_wheel_alone_in_an_empty_environment_runs_the_demo(
    shipped: dict[str, Path], tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path, timeout_seconds=BUILD_SECONDS)
    command = tmp_path / "env" / "bin" / "flight-replica"
    run(
        *(tmp_path / "env" / "bin" / "python", "-m", "pip", "install", "--quiet", shipped[".whl"]),
        cwd=tmp_path,
        timeout_seconds=INSTALL_SECONDS,
    )
    version = shipped[".whl"].name.split("-")[1]
    assert run(command, "--version", cwd=tmp_path, timeout_seconds=60.0) == f"flight-replica {version}\n"
    printed = run(
        *(command, "demo", "--seconds", "5", "--rows", "10000"), cwd=tmp_path, timeout_seconds=DEMO_SECONDS
    )
    assert re.fullmatch(r"replica and primary agree at seq \d+: \d+ rows", printed.splitlines()[-1])
