"""`StopSignal`: it is heard at once, and no number of signals stops the thread that they interrupt."""

from __future__ import annotations

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
