"""Waiting for a directory to change: by notification, by looking, and until somebody wakes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flight_replica.beside import log_watch
from flight_replica.beside.log_watch import LogWatch


class Directory:
    """A directory whose files are counted; what a log's reader knows of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.looks = threading.Semaphore(0)

    def look(self) -> None:
        self.looks.release()

    def mark(self) -> object:
        return [(path.name, path.stat().st_size) for path in sorted(self.path.glob("*"))]


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def watch(directory: Directory) -> Iterator[LogWatch]:
    found = LogWatch(directory.path, directory.look, directory.mark)
    found.wait(0)  # the first wait begins the notification
    found.clear()
    yield found
    found.close()


def test_a_write_ends_the_wait_and_is_news_once(watch: LogWatch, directory: Directory) -> None:
    assert not watch.wait(0.02)
    (directory.path / "a").write_bytes(b"1")
    assert watch.wait(30)
    assert watch.wait(30), "until it is cleared"
    watch.clear()
    with (directory.path / "a").open("ab") as file:
        file.write(b"2")
    assert watch.wait(30)


def test_what_changed_between_clear_and_wait_is_news(watch: LogWatch, directory: Directory) -> None:
    watch.clear()
    (directory.path / "a").write_bytes(b"1")
    assert watch.wait(30)


def test_a_new_file_is_looked_at_while_nobody_waits(watch: LogWatch, directory: Directory) -> None:
    (directory.path / "a").write_bytes(b"")
    assert directory.looks.acquire(timeout=30)


def test_without_notification_it_looks_often(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system's limit of watches is what usually refuses one."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(log_watch.Observer, "schedule", refuse)
    watch = LogWatch(directory.path, directory.look, directory.mark)
    assert not watch.wait(0)
    watch.clear()
    (directory.path / "a").write_bytes(b"1")
    assert watch.wait(30)
    assert "log directory is polled" in caplog.text
    watch.close()


def test_a_directory_that_comes_later_is_watched_from_then_on(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "later")
    watch = LogWatch(directory.path, directory.look, directory.mark)
    watch.clear()
    assert not watch.wait(0.01)
    directory.path.mkdir()
    assert watch.wait(30)
    watch.clear()
    (directory.path / "a").write_bytes(b"1")
    assert watch.wait(30)
    watch.close()


def test_wake_and_close_end_a_wait_in_another_thread(watch: LogWatch) -> None:
    for end in (watch.wake, watch.close):
        watch.clear()
        found: list[bool] = []
        thread = threading.Thread(target=lambda found=found: found.append(watch.wait(60)))
        thread.start()
        end()
        thread.join(30)
        assert found == [True]


def test_close_ends_every_thread_of_the_watch(directory: Directory) -> None:
    before = set(threading.enumerate())
    watch = LogWatch(directory.path, directory.look, directory.mark)
    watch.wait(0)
    assert set(threading.enumerate()) > before
    watch.close()
    watch.close()
    assert not {thread for thread in threading.enumerate() if thread.is_alive()} - before
