"""`StopSignal`: it is heard at once, and no number of signals stops the thread that they interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

ONE = """
import os, signal, threading, time
from flight_replica.stopping import StopSignal
stop = StopSignal()
assert not stop.is_set and not stop.wait(0.01)
threading.Timer(0.1, os.kill, (os.getpid(), signal.{name})).start()
began = time.monotonic()
assert stop.wait(20) and stop.is_set and time.monotonic() - began < 10
"""
MANY = """
import os, signal, threading
from flight_replica.stopping import StopSignal
stop = StopSignal()
def send():
    for _ in range(20_000):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
sender = threading.Thread(target=send)
sender.start()
while sender.is_alive():
    stop.wait(0.001)
assert stop.is_set
"""


def ends(program: str) -> bool:
    """Whether the program comes to its end; signals are for a process of its own."""
    return subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_wait(number: signal.Signals) -> None:
    assert ends(ONE.format(name=number.name))


def test_signals_may_interrupt_each_other() -> None:
    assert ends(MANY)


HANG_UPS = """
import os, signal, threading, time
from flight_replica.stopping import HangUps, StopSignal
hang_ups = HangUps()
os.kill(os.getpid(), signal.SIGHUP)  # while the server starts
stop = StopSignal()
hang_ups.wake = stop.wake
assert hang_ups.take() and not hang_ups.take()
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGHUP)).start()
began = time.monotonic()
while not hang_ups.take():
    assert not stop.wait(20) and time.monotonic() - began < 10
assert not stop.is_set
"""
CLOSED_TERMINAL = """
import os, sys
from flight_replica.stopping import HangUps, StopSignal
os.dup2(os.open(sys.argv[1], os.O_RDWR), 0)  # the first terminal that it opens is the one of its session
hang_ups = HangUps()
stop = StopSignal()
print("ready", flush=True)
sys.exit(0 if stop.wait(20) and not hang_ups.take() else 1)
"""


def test_hang_ups_are_heard_at_once_and_also_while_a_server_starts() -> None:
    assert ends(HANG_UPS)


def test_a_terminal_that_is_closed_stops_what_runs_in_it() -> None:
    terminal, other_end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSED_TERMINAL, os.ttyname(other_end)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(other_end)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.close(terminal)
        assert process.wait(30) == 0
