"""Values of settings: what is accepted, what it means, and what isn't accepted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flight_replica.config import kinds
from flight_replica.config.kinds import Kind

WRONG: list[object] = [
    None,
    "",
    "x",
    [],
    {},
    -1,
    -0.5,
    float("inf"),
    float("nan"),
    "-1s",
    "1 s s",
    "s",
    "1e3s",
]


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [
        (0, 0),
        (4107, 4107),
        ("4GB", 4_000_000_000),
        ("500MiB", 524_288_000),
        ("1.5 kB", 1500),
        ("1 TiB", 1 << 40),
        ("7b", 7),
        ("1gib", 1 << 30),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(value: object, size_bytes: int) -> None:
    assert kinds.SIZE.read(value) == size_bytes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1.5 h", 5400),
        ("2d", 172_800),
        ("9us", 9e-6),
    ],
)
def test_a_time_is_seconds_or_has_a_unit(value: object, seconds: float) -> None:
    assert kinds.SECONDS.read(value) == pytest.approx(seconds)
    assert kinds.MILLISECONDS.read(
        value if isinstance(value, str) else float(str(value)) * 1000
    ) == pytest.approx(seconds * 1000)


def _is_refused(kind: Kind, value: object) -> bool:
    try:
        kind.read(value)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("kind", [kinds.SIZE, kinds.SECONDS, kinds.MILLISECONDS, kinds.MEMORY, kinds.COUNT])
@pytest.mark.parametrize("value", [*WRONG, True, "4 gigs", "10 minutes", "1GB 2", "٣s", "1,5s", "4", "0x10"])
def test_an_amount_is_nothing_else(kind: Kind, value: object) -> None:
    assert _is_refused(kind, value)


DIGITS = "9" * 400


@pytest.mark.parametrize("value", [1 << 63, f"{DIGITS}GB", f"{DIGITS}.5GB", "9300000 TB", int(DIGITS)])
def test_a_size_has_an_end(value: object) -> None:
    assert _is_refused(kinds.SIZE, value)
    assert kinds.SIZE.read((1 << 63) - 1) == (1 << 63) - 1


@pytest.mark.parametrize("value", ["36501d", 1e300, int(DIGITS), f"{DIGITS}d", f"{DIGITS}.5d"])
def test_a_time_is_one_that_can_be_waited_for(value: object) -> None:
    assert _is_refused(kinds.SECONDS, value)
    assert _is_refused(kinds.MILLISECONDS, value if isinstance(value, str) else value * 1000)  # type: ignore[operator]
    assert kinds.SECONDS.read("36500d") <= threading.TIMEOUT_MAX


@pytest.mark.parametrize("kind", [kinds.COUNT, kinds.SIZE, kinds.SECONDS])
def test_a_text_of_any_length_is_a_number_or_refused(kind: Kind) -> None:
    """Python itself reads none of more than 4300 digits."""
    assert _is_refused(kind, kind.of_text("9" * 5000))


def test_a_seq_is_any_of_64_bits() -> None:
    assert kinds.SEQ.of_flag(str((1 << 64) - 1)) == (1 << 64) - 1
    assert _is_refused(kinds.SEQ, 1 << 64)


def test_units_are_of_their_kind() -> None:
    assert _is_refused(kinds.SIZE, "5m")
    assert _is_refused(kinds.SECONDS, "5MB")
    assert _is_refused(kinds.COUNT, "5s")


def test_above_zero_is_above_zero() -> None:
    for kind in (kinds.ABOVE_ZERO, kinds.SECONDS_ABOVE_ZERO, kinds.SIZE_ABOVE_ZERO, kinds.MEMORY):
        assert _is_refused(kind, 0)
        assert kind.read(1) == 1


def test_addresses_are_host_and_port() -> None:
    assert kinds.ADDRESS.read("127.0.0.1:0") == ("127.0.0.1", 0)
    assert kinds.ADDRESS.read("[::1]:4711") == ("::1", 4711)
    for wrong in ("", ":1", "host", "host:", "host:x", "host:65536", "host:-1", "host:²", 4711):
        assert _is_refused(kinds.ADDRESS, wrong), wrong


def test_a_text_of_the_command_line_or_a_variable_is_as_toml_would_have_it() -> None:
    assert kinds.COUNT.of_flag("5") == 5
    assert kinds.SECONDS.of_flag("1.5") == 1.5
    assert kinds.SIZE.of_flag("2KiB") == 2048
    assert kinds.SWITCH.of_flag("true") is True
    assert kinds.TEXTS.of_flag("a,b") == ("a", "b")
    for kind, text in (
        (kinds.COUNT, "1.5"),
        (kinds.SECONDS, "inf"),
        (kinds.SWITCH, "yes"),
        (kinds.COUNT, "²"),
    ):
        with pytest.raises(ValueError):
            kind.of_flag(text)


def test_a_path_in_a_file_is_below_the_folder_of_the_file() -> None:
    folder = Path("/etc/replica")
    assert kinds.PATH.below is not None and kinds.BASE.below is not None
    assert kinds.PATH.below(folder, "users.json") == "/etc/replica/users.json"
    assert kinds.PATH.below(folder, "/run/users.json") == "/run/users.json"
    assert kinds.BASE.below(folder, "merutable:data/t") == "merutable:/etc/replica/data/t"
    for base in (
        "merutable:s3://bucket/t",
        "iceberg:catalog:lake/a.t",
        "flight:grpc://h:1",
        "iceberg:",
        "nix:y",
    ):
        assert kinds.BASE.below(folder, base) == base


def test_a_secret_is_not_shown() -> None:
    assert "pass phrase" not in repr(kinds.SECRET.read("pass phrase"))
