"""What a client can ask of its reads: values, wrong values, and who wins."""

from __future__ import annotations

import pytest

from flight_replica.errors import InvalidStatement, TableNotFound
from flight_replica.flightsql.options import (
    NO_OPTIONS,
    OPTION_NAMES,
    Isolation,
    OptionValue,
    ReadOptions,
    Seqs,
    check_option,
    read_options,
)
from flight_replica.sql.time_zones import zone_name

SERVED = {"orders": "orders", "Orders": "orders", "a=b, é": "a=b, é", "items": "items"}


def _resolve(name: str) -> str:
    if name not in SERVED:
        raise TableNotFound(name)
    return SERVED[name]


def _read(session: dict[str, OptionValue] | None = None, **headers: str | list[str]) -> ReadOptions:
    given = {
        f"merutable-{name.replace('_', '-')}": [value] if isinstance(value, str) else value
        for name, value in headers.items()
    }
    return read_options(session or {}, given)


def test_without_options_a_read_demands_nothing_and_would_wait_ten_seconds() -> None:
    assert _read() is NO_OPTIONS
    assert ReadOptions() == NO_OPTIONS
    assert (NO_OPTIONS.min_seq, NO_OPTIONS.max_staleness_ms, NO_OPTIONS.wait_timeout_ms) == (
        None,
        None,
        10_000,
    )


def test_every_option_is_read_out_of_headers_and_out_of_the_session() -> None:
    texts = {
        "min_seq": "123",
        "max_staleness_ms": "250.5",
        "wait_timeout_ms": "0",
        "as_of_seq": "orders=7,items=8",
        "isolation": "snapshot",
        "pin": "report",
        "statement_timeout_ms": "1000",
        "time_zone": "europe/berlin",
    }
    assert set(texts) == set(OPTION_NAMES)
    expected = ReadOptions(
        min_seq=Seqs(123),
        max_staleness_ms=250.5,
        wait_timeout_ms=0,
        as_of_seq=Seqs(None, {"orders": 7, "items": 8}),
        isolation=Isolation.SNAPSHOT,
        pin="report",
        statement_timeout_ms=1000,
        time_zone="Europe/Berlin",
    )
    assert _read(**texts) == expected
    assert _read(dict(texts)) == expected


def test_numbers_of_a_session_may_come_as_numbers() -> None:
    assert _read({"min_seq": 2**53, "max_staleness_ms": 5.0, "wait_timeout_ms": 7}) == ReadOptions(
        min_seq=Seqs(2**53), max_staleness_ms=5, wait_timeout_ms=7
    )


def test_a_header_wins_over_the_session() -> None:
    found = _read({"min_seq": "5", "wait_timeout_ms": "1"}, min_seq="orders=9")
    assert found == ReadOptions(min_seq=Seqs(None, {"orders": 9}), wait_timeout_ms=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("min_seq", text)
            for text in ("", "x", "-1", "1.5", "orders", "orders=", "=5", "orders=x", str(2**64))
        ),
        *(("min_seq", text) for text in ("orders=1,ORDERS=2", "orders=1,", "%ff=1", "٣")),
        *(("min_seq", value) for value in (True, ("1",), 1.5, -3)),
        *(("max_staleness_ms", text) for text in ("", "x", "-1", "nan", "inf", "1e300", True)),
        *(("wait_timeout_ms", text) for text in ("-1", "soon", "86400001")),
        *(("statement_timeout_ms", text) for text in ("0", "-5")),
        *(("isolation", text) for text in ("serializable", "")),
        *(("pin", text) for text in ("", "p" * 201)),
        *(("time_zone", text) for text in ("", "Berlin", "Europe/Atlantis", "UTC'; --")),
    ],
)
def test_a_wrong_value_is_refused_by_name_in_headers_and_in_the_session(
    name: str, value: OptionValue
) -> None:
    with pytest.raises(InvalidStatement, match=f"session option {name}: "):
        check_option(name, value)
    if isinstance(value, str):
        with pytest.raises(InvalidStatement, match=f"call header merutable-{name.replace('_', '-')}: "):
            _read(**{name: value})


def test_a_header_of_ours_that_is_not_known_is_refused_and_others_pass() -> None:
    with pytest.raises(
        InvalidStatement, match=r"'merutable-min-seqs' isn't known; there are merutable-min-seq"
    ):
        _read(min_seqs="3")
    assert read_options({}, {"x-min-seq": ["3"], "merutable-lineage": ["x"]}) is NO_OPTIONS


def test_an_isolation_that_is_none_is_told_which_there_are() -> None:
    with pytest.raises(
        InvalidStatement, match="'serializable' is no isolation; there are read-committed and"
    ):
        _read(isolation="serializable")


def test_a_bare_seq_is_for_the_one_table_read_and_an_error_for_several() -> None:
    assert Seqs(5).of(["orders"], _resolve, "min_seq") == {"orders": 5}
    assert Seqs(5).of([], _resolve, "min_seq") == {}
    with pytest.raises(InvalidStatement, match=r"min_seq 5: the statement reads 2 tables \(orders, items\)"):
        Seqs(5).of(["orders", "items"], _resolve, "min_seq")


def test_named_seqs_hold_for_the_tables_read_and_names_are_percent_encoded() -> None:
    found = _read(min_seq=" Orders=1 , a%3Db%2C%20%C3%A9=2,items=3").min_seq
    assert found is not None
    assert found.of(["orders", "a=b, é"], _resolve, "min_seq") == {"orders": 1, "a=b, é": 2}


def test_a_seq_for_a_table_that_is_not_served_is_no_typing_error_that_passes() -> None:
    with pytest.raises(TableNotFound, match="order"):
        Seqs(None, {"order": 5}).of(["orders"], _resolve, "min_seq")


def test_of_several_values_of_a_header_the_strictest_counts() -> None:
    found = _read(
        min_seq=["orders=5,items=1", "orders=3", "items=2"],
        max_staleness_ms=["500", "100"],
        wait_timeout_ms=["1", "10"],
        isolation=["read-committed", "snapshot"],
        pin=["p", "p"],
    )
    assert found == ReadOptions(
        min_seq=Seqs(None, {"orders": 5, "items": 2}),
        max_staleness_ms=100,
        wait_timeout_ms=1,
        isolation=Isolation.SNAPSHOT,
        pin="p",
    )
    assert _read(min_seq=["5", "9", "7"]).min_seq == Seqs(9)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("min_seq", ["5", "orders=5"]),
        ("as_of_seq", ["5", "6"]),
        ("pin", ["p", "q"]),
        ("time_zone", ["UTC", "Asia/Tokyo"]),
    ],
)
def test_values_of_a_header_of_which_none_is_stricter_are_refused(name: str, values: list[str]) -> None:
    with pytest.raises(InvalidStatement, match="2 values that differ"):
        _read(**{name: values})


def test_time_zones_are_duckdbs_by_name_in_any_case() -> None:
    assert zone_name("UTC") == "UTC"
    assert zone_name("AMERICA/new_york") == "America/New_York"
    assert zone_name("Nowhere") is None
