"""The secrets of a client: read anew for each call, never told."""

from __future__ import annotations

from pathlib import Path

import pytest

from flight_replica.errors import ConfigError
from flight_replica.log.credentials import SECRET_BYTES_MAX, basic, bearer, secret_in
from flight_replica.log.feed_client import Endpoint


def test_a_renewed_token_is_the_next_calls(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    header = bearer(secret_in(path, "token"))
    assert header() == "Bearer first"
    path.write_text("second")
    assert header() == "Bearer second"


def test_user_and_password_make_a_basic_header() -> None:
    assert basic("ann", lambda: "pä:ss")() == "Basic YW5uOnDDpDpzcw=="


@pytest.mark.parametrize("text", ["", "\n", "a secret\nof two lines", "x" * (SECRET_BYTES_MAX + 1), "\x00"])
def test_what_can_be_no_secret_is_refused_without_being_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ConfigError, match="isn't one line") as caught:
        secret_in(path, "token")()
    assert text.strip() == "" or text not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"token file .*nowhere can't be read"):
        secret_in(tmp_path / "nowhere", "token")()


def test_secrets_stay_out_of_an_endpoints_repr() -> None:
    at = Endpoint("grpc://h:1", authorization=lambda: "Bearer s3cret", client_certificate=(b"c", b"s3cret"))
    assert "s3cret" not in repr(at)
