"""`StateSlot`: a state lives exactly as long as it is current or read."""

from __future__ import annotations

from typing import cast

import pytest

from flight_replica.errors import Closed, Unavailable
from flight_replica.replica.slot import StateSlot
from flight_replica.state.state import ReplicaState


class FakeState:
    """Counts its ends."""

    def __init__(self) -> None:
        self.closes = 0
        self.error: Exception | None = None

    def close(self) -> None:
        self.closes += 1
        if self.error is not None:
            raise self.error


def new_state() -> tuple[FakeState, ReplicaState]:
    fake = FakeState()
    return fake, cast(ReplicaState, fake)


def test_an_empty_slot_says_why() -> None:
    slot = StateSlot("table 't' is loading")
    assert slot.is_empty
    with pytest.raises(Unavailable, match="table 't' is loading"):
        slot.pin()


def test_a_state_nobody_reads_ends_with_the_swap() -> None:
    slot = StateSlot("")
    (old, old_state), (new, new_state_) = new_state(), new_state()
    slot.swap(old_state)
    slot.swap(new_state_)
    assert (old.closes, new.closes, slot.retired_count) == (1, 0, 0)
    assert slot.current is new_state_


def test_a_pinned_state_ends_with_its_last_reader() -> None:
    slot = StateSlot("")
    (old, old_state), (_, second) = new_state(), new_state()
    slot.swap(old_state)
    first_pin, second_pin = slot.pin(), slot.pin()
    slot.swap(second)
    assert (old.closes, slot.retired_count) == (0, 1)
    slot.release(first_pin)
    assert old.closes == 0
    slot.release(second_pin)
    assert (old.closes, slot.retired_count) == (1, 0)


def test_pins_of_the_current_state_come_and_go() -> None:
    slot = StateSlot("")
    fake, state = new_state()
    slot.swap(state)
    slot.release(slot.pin())
    assert fake.closes == 0
    assert slot.pin() is state


def test_close_lets_readers_finish_and_admits_no_more() -> None:
    slot = StateSlot("")
    fake, state = new_state()
    slot.swap(state)
    pinned = slot.pin()
    slot.close()
    slot.close()
    with pytest.raises(Closed):
        slot.pin()
    assert fake.closes == 0
    slot.release(pinned)
    assert fake.closes == 1


def test_a_swap_into_a_closed_slot_is_refused_and_its_state_stays_the_caller_s() -> None:
    slot = StateSlot("")
    slot.close()
    fake, state = new_state()
    with pytest.raises(Closed):
        slot.swap(state)
    assert fake.closes == 0


def test_a_state_that_can_not_be_closed_hits_neither_the_new_one_nor_its_last_reader(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slot = StateSlot("")
    states = [new_state() for _ in range(4)]
    for fake, state in states:
        fake.error = OSError("in use")
        slot.swap(state)
    pinned = slot.pin()
    slot.close()
    slot.release(pinned)
    assert [fake.closes for fake, _ in states] == [1, 1, 1, 1]
    assert slot.retired_count == 0
    assert caplog.text.count("old state not closed") == 4
