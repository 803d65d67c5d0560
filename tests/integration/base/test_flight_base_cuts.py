"""`FlightBase` where the way is cut, the server forgets, ends or lies: the same table, or a clear error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flight_replica.base import fetch
from flight_replica.base.fetched_file import FetchedFile, Part
from flight_replica.base.pinned_table import PinnedTable, ServerDigest
from flight_replica.errors import BaseError, BaseNotUsable, Closed, LineageChanged
from tests.integration.base.flight_primary import FlightPrimary, counted
from tests.processes import until

RANGE_BYTES = 100_000  # a dozen ranges of the table below


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[FlightPrimary]:
    with closing(FlightPrimary(tmp_path)) as found:
        found.write_rows(60_000)
        yield found


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> Finished:
    return Finished(monkeypatch)


class Finished:
    """The ranges that have become files, in order; something may happen after some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: list[Part] = []
        self.then: dict[int, object] = {}
        finish = FetchedFile.finish

        def finish_and_tell(file: FetchedFile) -> Part:
            part = finish(file)
            self.parts.append(part)
            happening = self.then.pop(len(self.parts), None)
            if callable(happening):
                happening()
            return part

        monkeypatch.setattr(FetchedFile, "finish", finish_and_tell)

    @property
    def paths(self) -> list[str]:
        return [part.file.path for part in self.parts if part.file is not None]


@contextmanager
def on_interruption(act: object) -> Iterator[None]:
    """`act` is called whenever a base says that it was interrupted."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "interrupted" in record.getMessage() and callable(act):
                act()

    handler, logger = Handler(), logging.getLogger(fetch.__name__)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def test_after_a_cut_it_goes_on_with_what_is_not_whole_under_the_same_pin(
    primary: FlightPrimary, finished: Finished
) -> None:
    expected, seq = primary.counted(), primary.service.engine.table("t").high_water
    whole_at_cut: list[int] = []

    def write_and_heal() -> None:
        if not whole_at_cut:
            primary.write("DELETE FROM t WHERE id < 1000")  # newer than the pin
        whole_at_cut.append(len(finished.parts))
        primary.proxy.heal()

    with closing(primary.base(RANGE_BYTES)) as base, on_interruption(write_and_heal):
        base.begin()
        primary.proxy.truncate_after(700_000)
        snapshot = base.load()
        assert counted(snapshot) == expected
    assert 0 < whole_at_cut[0] < len(snapshot.files), "it was cut in the middle"
    assert snapshot.base_seq == seq
    assert sorted(finished.paths) == [file.path for file in snapshot.files], "none came twice"


@pytest.mark.parametrize("byte_count", [0, 1, 100, 5_000, 50_000, 200_000, 500_000])
def test_wherever_the_bytes_end_the_table_is_the_same(primary: FlightPrimary, byte_count: int) -> None:
    expected = primary.counted()
    with closing(primary.base(RANGE_BYTES)) as base:
        base.begin()
        primary.proxy.truncate_after(byte_count)
        with on_interruption(primary.proxy.heal):
            assert counted(base.load()) == expected


def test_a_server_that_forgot_the_pin_gives_a_new_moment_and_nothing_of_the_old_one_is_used(
    primary: FlightPrimary, finished: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    old: list[str] = []

    def forget() -> None:
        if not old:
            old.extend(finished.paths)
            primary.write("UPDATE t SET v = 'new'")
            primary.restart_server()
        primary.proxy.heal()

    with closing(primary.base(RANGE_BYTES)) as base, on_interruption(forget):
        begun = base.begin()
        primary.proxy.truncate_after(700_000)
        snapshot = base.load()
        assert counted(snapshot) == primary.counted()
        assert snapshot.base_seq == begun.base_seq + 60_000
        assert old
        assert not any(Path(path).exists() for path in old)
        assert not set(old) & {file.path for file in snapshot.files}
    assert "base begun anew" in caplog.text


def test_a_server_that_ends_every_pin_is_given_up_with_a_reason(
    primary: FlightPrimary, finished: Finished
) -> None:
    def end_pins() -> None:
        pins = primary.server._front.planner.pins
        for _, name in list(pins._named):
            pins.end("", name)
        primary.proxy.cut()
        finished.then[len(finished.parts) + 1] = end_pins

    finished.then[1] = end_pins
    with (
        closing(primary.base(RANGE_BYTES)) as base,
        pytest.raises(BaseNotUsable, match=r"let go of 3 pins one after another: .*its client ended it"),
    ):
        base.load()


def test_a_silence_that_is_too_long_is_an_error_that_names_it(
    primary: FlightPrimary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.5)
    with closing(primary.base(RANGE_BYTES)) as base:
        base.begin()
        primary.proxy.truncate_after(0)
        with pytest.raises(BaseNotUsable, match=r"nothing came from grpc://127.0.0.1:\d+/t for \d+ s: "):
            base.load()
        primary.proxy.heal()
        assert base.load().row_count == 60_000


def test_another_digest_at_the_server_is_an_error_with_both(
    primary: FlightPrimary, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(primary.base(RANGE_BYTES)) as base:
        monkeypatch.setattr(PinnedTable, "digest", lambda table, reading: ServerDigest(60_000, 5))
        with pytest.raises(
            BaseError, match=r"60000 rows with digest \d+ came from .*, the server .* with 5$"
        ):
            base.load()
        assert not any(Path(path).exists() for path in finished.paths), "nothing of it is kept"
        monkeypatch.undo()
        assert counted(base.load()) == primary.counted()


def test_another_lineage_than_expected_is_refused_before_a_row_comes(primary: FlightPrimary) -> None:
    base = primary.base()
    with closing(base):
        base.begin()
        primary.write("DROP TABLE t")
        primary.write_rows(10)
        primary.restart_server()
        with pytest.raises(LineageChanged, match=r"is of lineage .*, expected "):
            base.load()


def test_closing_ends_a_load_that_hears_nothing_and_leaves_no_file(
    primary: FlightPrimary, finished: Finished
) -> None:
    base = primary.base(RANGE_BYTES)
    raised: list[BaseException] = []

    def load() -> None:
        try:
            base.load()
        except Closed as error:
            raised.append(error)

    worker = threading.Thread(target=load)
    worker.start()
    until(lambda: len(finished.parts) > 1, "a load is under way")
    primary.proxy.stall()
    base.close()
    worker.join(20)
    primary.proxy.heal()
    assert raised
    assert not (primary.folder / "base1").exists()
    base.close()


def test_progress_is_told_while_it_loads(primary: FlightPrimary, finished: Finished) -> None:
    told: list[str] = []
    with closing(primary.base(RANGE_BYTES)) as base:
        assert base.progress == ""
        finished.then[6] = lambda: told.append(base.progress)
        base.load()
        assert base.progress == ""
    assert " of 60000 rows, " in told[0]
    assert "ranges from grpc://" in told[0]
