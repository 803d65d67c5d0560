"""A primary on another host, as a replica sees it: the places that it publishes aren't there.

python -m tests.far_primary --data DIR [--retain-ops N] --listen HOST:PORT
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import TableEntry
from flight_replica.flightsql.status import hide_tracebacks
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from flight_replica.stopping import StopSignal

ELSEWHERE = "/on/another/host"


class FarPrimary(PrimaryService):
    """The reference primary, but for where its bases lie."""

    def tables(self) -> Sequence[TableEntry]:
        return [
            replace(entry, base_uri=f"{ELSEWHERE}{entry.base_uri}") if entry.base_uri is not None else entry
            for entry in super().tables()
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--retain-ops", type=int, default=1_000_000)
    parser.add_argument("--listen", required=True)
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    hide_tracebacks()
    stop = StopSignal()
    settings = PrimarySettings(publish_seconds=0.2, retention_ops=options.retain_ops)
    with (
        closing(FarPrimary.open(options.data, settings)) as service,
        closing(FlightSqlServer(service, host, int(port))) as server,
    ):
        print(f"listening on grpc://{host}:{server.port}", flush=True)
        while not stop.wait(1.0):
            pass


if __name__ == "__main__":
    main()
