"""Where a replica reads a table's log: over Flight, in the same process, or nowhere."""

from flight_replica.log.change_feed import ChangeFeedLogSource
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import FeedMark, LogGap, LogSource, Op, OpBatch, OpRecord, OpStream

__all__ = [
    "ChangeFeedLogSource",
    "FeedMark",
    "InProcessLogSource",
    "LogGap",
    "LogSource",
    "Op",
    "OpBatch",
    "OpLog",
    "OpRecord",
    "OpStream",
]
