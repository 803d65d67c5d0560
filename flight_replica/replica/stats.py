"""What a replica says of itself in numbers and outcomes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """A moment of one table's replica."""

    visible_seq: int
    base_seq: int
    tail_length: int  # ops applied since the base was adopted, not distinct keys
    rebase_count: int  # hot swaps
    last_rebase_warmup_millis: int  # of the last hot swap; 0 before the first


@dataclass(frozen=True, slots=True)
class Advanced:
    """The log was drained."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The log had a gap; a newer base was adopted."""

    new_base_seq: int


AdvanceOutcome = Advanced | Recovered


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Limits and times of one table's replica."""

    history_bytes_max: int = 256 << 20  # ops kept for replicas of this replica, and for rebases
    commit_bytes_max: int = 1 << 30  # one commit, which is applied whole
    tail_bytes_max: int = 1 << 30  # ops applied over one base before a newer one is looked for at once
    rebase_timeout_seconds: float | None = 60.0
    native_disk_bytes_max: int = 64 << 30  # of all native states; what may be beyond stays on merge on read
    base_poll_seconds: float = 5.0  # how often a newer base is looked for
    heartbeat_ms: int = 500  # of the feed served to other replicas


DEFAULT_SETTINGS = ReplicaSettings()
