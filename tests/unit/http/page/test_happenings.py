"""What the page tells of the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from flight_replica.http.page.happenings import KEPT, TEXT_CHARACTERS_MAX, Happening, Happenings

LOGGER = logging.getLogger("flight_replica_happenings_test")
PART = logging.getLogger("flight_replica_happenings_test.part")


@pytest.fixture
def happenings() -> Iterator[Happenings]:
    found = Happenings()
    LOGGER.setLevel(logging.INFO)
    found.listen(LOGGER)
    yield found
    found.close()


def everything(happenings: Happenings) -> list[Happening]:
    return happenings.after(0, lambda found: True)


def test_an_event_about_a_table_is_told_with_its_table(happenings: Happenings) -> None:
    PART.info("rebased table=%s base_seq=%d", "orders", 7)
    (found,) = everything(happenings)
    assert (found.table, found.text, found.level) == ("orders", "rebased: base seq 7", "info")


def test_what_happens_all_the_time_is_told_once_with_its_number(happenings: Happenings) -> None:
    PART.warning("something odd table=%s", "orders")
    for seq in range(KEPT):
        PART.info("rebased table=%s base_seq=%d", "orders", seq)
        PART.info("rebased table=%s base_seq=%d", "items", seq)
    odd, orders, items = everything(happenings)
    assert (odd.text, orders.table, items.table) == ("something odd", "orders", "items")
    assert orders.as_json()["text"] == f"rebased: base seq {KEPT - 1} ({KEPT} times in a row)"
    assert orders.replaces == orders.id - 2


@pytest.mark.parametrize(
    ("state", "reason", "level", "text"),
    [
        ("serving", "", "good", "serving"),
        ("degraded", "log gap: x", "warning", "degraded: log gap: x"),
        ("loading", "reading its base", "info", "loading: reading its base"),
    ],
)
def test_a_new_state_is_told_with_its_reason(
    happenings: Happenings, state: str, reason: str, level: str, text: str
) -> None:
    PART.info("table state table=%s state=%s reason=%s", "orders", state, reason)
    (found,) = everything(happenings)
    assert (found.level, found.text) == (level, text)


def test_what_is_about_no_table_is_told_only_if_it_is_a_warning(happenings: Happenings) -> None:
    PART.info("file read again path=%s", "users.json")
    PART.warning("disk nearly full bytes=%d", 12)
    PART.error("thread failed thread=%s", "x")
    assert [(found.level, found.table) for found in everything(happenings)] == [("warning", ""), ("bad", "")]


def test_a_table_s_name_cannot_pass_for_another(happenings: Happenings) -> None:
    name = "mine table=orders"
    PART.info("rebased table=%s base_seq=%d", name, 7)
    assert everything(happenings)[0].table == name


def test_the_newest_ones_are_kept_and_long_texts_cut(happenings: Happenings) -> None:
    for number in range(KEPT + 5):
        PART.warning("x number=%d text=%s", number, "y" * 2 * TEXT_CHARACTERS_MAX)
    found = everything(happenings)
    assert [found[0].id, found[-1].id, len(found)] == [6, KEPT + 5, KEPT]
    assert all(len(happening.text) == TEXT_CHARACTERS_MAX for happening in found)
    assert [later.id for later in happenings.after(KEPT + 3, lambda found: True)] == [KEPT + 4, KEPT + 5]


def test_after_its_end_it_hears_nothing(happenings: Happenings) -> None:
    happenings.close()
    PART.warning("x")
    assert everything(happenings) == []
