"""`Doors`: pyarrow's servers at one port, one after another as certificates change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pyarrow as pa
from pyarrow import flight

from flight_replica.errors import Unavailable
from flight_replica.flightsql.port import stop_listening, wait_until_free

logger = logging.getLogger(__name__)

DOORS_MAX = 8  # certificates that connections may be open with; the oldest ones are then told to come anew
PORT_SECONDS = 10.0  # how long the port may be taken while it changes hands
CLOSE_SECONDS = 10.0  # how long `close` waits for calls whose clients neither read nor go


class Doors:
    """Owns the servers, of which the last takes connections. To be used by one thread at a time."""

    def __init__(self, address: tuple[str, int], first: flight.FlightServerBase) -> None:
        self.address = address
        self._doors = [first]
        self._endings: list[threading.Thread] = []  # of doors that were shut, and have calls under way

    def change(self, open_door: Callable[[], flight.FlightServerBase]) -> None:
        """Let another door take connections from now on; those that there are stay.

        pyarrow reads a certificate once, and shares its port with nobody. So the port changes hands: the old
        server stops to listen and keeps its connections, and a second one of pyarrow's listens at once. For
        about a millisecond nobody does, and a client that connects just then is refused.
        Raises `Unavailable` when another process has taken the port.
        """
        if not stop_listening(self.address):
            self._shut(self._doors.pop())
        wait_until_free(self.address, PORT_SECONDS)
        try:
            self._doors.append(open_door())
        except pa.ArrowException as error:
            raise Unavailable(f"port {self.address[1]} can't be listened on: {error}") from error
        while len(self._doors) > DOORS_MAX:
            self._shut(self._doors.pop(0))

    def _shut(self, door: flight.FlightServerBase) -> None:
        """End one door once its calls have ended; its clients connect anew for further ones."""
        ending = threading.Thread(target=door.shutdown, name="flight-shutdown", daemon=True)
        ending.start()
        self._endings = [*(thread for thread in self._endings if thread.is_alive()), ending]

    def close(self) -> bool:
        """End them all; whether calls are left open that have lasted `CLOSE_SECONDS`. Idempotent."""
        while self._doors:
            self._shut(self._doors.pop())
        deadline = time.monotonic() + CLOSE_SECONDS
        for ending in self._endings:
            ending.join(max(deadline - time.monotonic(), 0.0))
        are_left = any(ending.is_alive() for ending in self._endings)
        if are_left:
            logger.warning("server closed with calls left open seconds=%g", CLOSE_SECONDS)
        return are_left
