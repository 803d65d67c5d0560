"""Names that nobody can guess."""

from __future__ import annotations

import subprocess
import sys

from flight_replica.flightsql.secret_names import secret_name


def test_names_differ() -> None:
    names = {secret_name() for _ in range(1000)}
    assert len(names) == 1000
    assert {len(name) for name in names} == {16}


def test_another_process_has_other_names() -> None:
    first = "from flight_replica.flightsql.secret_names import secret_name; print(secret_name().hex())"
    found = subprocess.run([sys.executable, "-c", first], capture_output=True, text=True, check=True)
    ours = {secret_name().hex() for _ in range(10)}
    assert found.stdout.strip() not in ours
