"""Commands begin without pandas, and without what they don't need yet."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _loaded_after(program: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after it."""
    run = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(run.stdout.splitlines()[-1].split())


_ALONE = "from flight_replica.arrow_alone import keep_pandas_out\nkeep_pandas_out()\nimport pyarrow as pa\n"


def test_values_are_converted_without_pandas() -> None:
    assert "pandas" not in _loaded_after(f"{_ALONE}pa.array([1, None, 2])")


def test_a_frame_can_be_had_all_the_same() -> None:
    pytest.importorskip("pandas")
    assert "pandas" in _loaded_after(f"{_ALONE}assert len(pa.table({{'a': [1, 2]}}).to_pandas()) == 2")


def test_a_replica_starts_without_what_only_some_of_them_need() -> None:
    loaded = _loaded_after(
        "from flight_replica.arrow_alone import keep_pandas_out\n"
        "keep_pandas_out()\n"
        "import flight_replica.replica.service, flight_replica.replica.steering\n"
        "import flight_replica.flightsql.server, flight_replica.control.control"
    )
    unwanted = {"pandas", "pyiceberg", "jwt", "cryptography", "starlette", "prometheus_client", "grpc"}
    assert not unwanted & loaded


def test_help_is_shown_without_the_libraries_of_any_command() -> None:
    loaded = _loaded_after(
        "from flight_replica.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    )
    assert not {"pyarrow", "pydantic", "duckdb", "numpy", "rich"} & loaded
