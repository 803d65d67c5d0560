"""Users files for tests, with passwords that are quick to check."""

from __future__ import annotations

import json
from pathlib import Path

from flight_replica.flightsql.passwords import hash_password


def write_users(path: Path, **users: dict[str, object]) -> Path:
    """A users file; each user's entry has its `password` in the clear."""
    entries = {
        name: {**entry, "password": hash_password(str(entry["password"]), n=16, p=1).encode()}
        for name, entry in users.items()
    }
    # Renamed over the old one, as the command does it: never seen half written.
    written = path.with_suffix(".new")
    written.write_text(json.dumps({"users": entries}))
    return written.replace(path)
