"""Request ids: whose they are, and which lines have them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flight_replica.logs.request import current_request, in_request, items_in_request, request_id_of


@pytest.mark.parametrize("given", ["a", "9f1c-77", "00-abc_DEF.1/x:y=z+@", "x" * 128])
def test_a_client_s_own_id_is_taken(given: str) -> None:
    assert request_id_of(given) == given


@pytest.mark.parametrize("given", [None, "", " ", "a b", "a\nb", "ä", "x" * 129, 'a"b', "\x1b[0m"])
def test_one_that_is_none_or_would_spoil_a_line_is_replaced(given: str | None) -> None:
    made, another = request_id_of(given), request_id_of(given)
    assert made != given and made != another
    assert len(made) == 16 and int(made, 16) >= 0


def test_the_id_is_known_inside_the_block_alone() -> None:
    with in_request("a"):
        with in_request("b"):
            assert current_request() == "b"
        assert current_request() == "a"
    assert current_request() is None


def test_each_item_is_made_under_its_id_and_nothing_else_is() -> None:
    seen: list[str | None] = []

    def items() -> Iterator[int]:
        try:
            for number in range(3):
                seen.append(current_request())
                yield number
        finally:
            seen.append(current_request())

    one, other = items_in_request("one", items()), items_in_request("other", items())
    assert (next(one), next(other), current_request()) == (0, 0, None)
    assert list(one) == [1, 2]
    other.close()  # type: ignore[attr-defined]
    assert seen == ["one", "other", "one", "one", "one", "other"]


def test_an_error_comes_through() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    stream = items_in_request("a", items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)
    assert current_request() is None
