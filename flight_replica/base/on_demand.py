"""`OnDemandBase`: a base source whose snapshots are dear; it makes a newer one only when asked to."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class OnDemandBase(Protocol):
    """What such a `BaseSource` does besides. Thread-safe: `close` comes while another thread is in `load`."""

    @property
    def progress(self) -> str:
        """How far a load under way has come, for people; empty when there is none."""
        ...

    @property
    def remark(self) -> str:
        """What people should know of where the base came from; empty for nothing."""
        ...

    def resume(self) -> None:
        """The table goes on from a state of its own: no base is needed until a newer one is wanted."""
        ...

    def want(self, seq: int) -> None:
        """Let the next load give a snapshot at `seq` or later: an older one is of no use any more."""
        ...

    def close(self) -> None:
        """End a load that is under way, which raises `Closed`, and let go of what it holds. Idempotent."""
        ...
