"""What is said of a table that isn't well."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from flight_replica.control.steering import TableDetails
from flight_replica.http.page.health import Health, advice_for, health_of, helps
from tests.unit.http.page.table_status import status


@pytest.mark.parametrize(
    ("state", "reason", "lag_us", "health", "help"),
    [
        ("serving", "", 20_000, Health.OK, None),
        ("serving", "a remark of the base", 0, Health.OK, None),
        ("serving", "", 6_000_000, Health.BEHIND, "behind"),
        ("serving", "", -1, Health.BEHIND, "behind"),
        ("paused", "paused by ann", 6_000_000, Health.WARNING, "paused"),
        ("degraded", "log gap: requested since 7, earliest available 90: trimmed", 0, Health.BAD, "log-gap"),
        ("degraded", "the newest base can't be taken: x.parquet", 0, Health.WARNING, "base-not-usable"),
        ("degraded", "following failed: something odd", 0, Health.BAD, "other"),
        ("loading", "reading its base", -1, Health.WARNING, "loading"),
        ("loading", "catching up from seq 3 to 90: 3 of 7 ranges", -1, Health.WARNING, "loading"),
        ("loading", "log 000007.log, offset 12: bad record", -1, Health.BAD, "damaged-log"),
        ("loading", "grpc://10.0.0.1:47: failed to connect to all addresses", -1, Health.BAD, "primary-lost"),
        ("loading", "table 't': tail holds 9 bytes, limit 8 bytes", -1, Health.BAD, "limit"),
        ("waiting", "there is no base yet", -1, Health.WARNING, "waiting"),
    ],
)
def test_each_trouble_has_its_advice(
    state: str, reason: str, lag_us: int, health: Health, help: str | None
) -> None:
    table = status("orders", state=state, reason=reason, lag_us=lag_us)
    assert health_of(table) is health
    assert [advice.help for advice in advice_for([table])] == ([help] if help is not None else [])


def test_every_advice_has_its_part_of_the_help() -> None:
    text = (files("flight_replica.http.page") / "static" / "help.html").read_text()
    assert set(re.findall(r'<h2 id="([^"]+)"', text)) == helps()


def test_a_table_without_a_feed_is_as_new_as_it_can_be() -> None:
    details = TableDetails("orders", is_followed=False)
    assert health_of(status("orders", lag_us=-1, details=details)) is Health.OK
    assert health_of(status("orders", lag_us=-1, details=TableDetails("orders"))) is Health.BEHIND


def test_the_advice_on_a_table_behind_says_how_old_it_may_be() -> None:
    (advice,) = advice_for([status("orders", lag_us=600_000_000)])
    assert "10 min old" in advice.text


def test_tables_of_the_same_trouble_have_one_advice_and_the_worst_comes_first() -> None:
    tables = [status(f"t{number}", lag_us=(6 + number) * 1_000_000) for number in range(300)]
    tables.append(status("gone", state="degraded", reason="log gap: x"))
    worst, behind = advice_for(tables)
    assert (worst.tables, worst.help) == (("gone",), "log-gap")
    assert len(behind.tables) == 300
    assert "5 min old" in behind.text
