"""What systemd hears, over a real datagram socket, and that nobody else does."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flight_replica.systemd import Systemd


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield found


def test_each_step_is_one_datagram(channel: socket.socket) -> None:
    systemd = Systemd()
    systemd.ready("serving")
    assert channel.recv(1000) == b"READY=1\nSTATUS=serving"
    systemd.stopping("draining")
    assert channel.recv(1000) == b"STOPPING=1\nSTATUS=draining"


def test_it_says_that_it_is_alive_where_that_is_watched(
    channel: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    Systemd().alive()
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    Systemd().alive()  # another process is watched
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Systemd().alive()
    assert channel.recv(1000) == b"WATCHDOG=1"
    channel.settimeout(0)
    with pytest.raises(BlockingIOError):
        channel.recv(1000)


def test_an_abstract_socket_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"flight-replica-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{name}")
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Systemd().ready("serving")
        assert channel.recv(1000).startswith(b"READY=1")


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Systemd().ready("serving")


def test_a_manager_that_is_not_there_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Systemd().ready("serving")
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1234")
    Systemd().ready("serving")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
