"""What a server says of the way that it lets clients in."""

from __future__ import annotations

from pathlib import Path

import pytest

from flight_replica.access import server_access
from flight_replica.config import ServeConfig, load
from tests.accounts import write_users


@pytest.mark.parametrize("port", ["listen", "http_listen", "admin_listen"])
def test_a_password_in_the_clear_is_told_for_each_port(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, port: str
) -> None:
    write_users(tmp_path / "users.json", ann={"password": "ann's pass phrase"})
    options = {"primary": "grpc://127.0.0.1:1", "auth": "basic", "users": str(tmp_path / "users.json")}
    server_access(load(ServeConfig, {**options, "http_listen": "127.0.0.1:4714"}, {}).config)
    assert caplog.messages == []
    server_access(load(ServeConfig, {**options, port: "10.0.0.1:4714"}, {}).config)
    (message,) = caplog.messages
    assert "travel in the clear" in message
    assert f"setting={port.replace('_', '.')} host=10.0.0.1" in message
