"""`LineageRecord`: what a feed server remembers of one table from one run to the next.

A lineage is the table's own UUID until something shows that seqs mean something else than before: the table
was created anew or put back to an older state, the engine gave seqs out again, damage was accepted, or the
machine went down so that nobody knows how far the feed had got.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from flight_replica.beside.engine_catalog import CatalogVersion
from flight_replica.errors import ConfigError

_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class LineageRecord:
    """Immutable; `save` puts it down as a whole."""

    lineage: UUID
    table_uuid: UUID | None  # None: nothing was committed yet
    snapshot_id: int = 0  # the newest that was seen
    low_water: int = 0
    files_reach: int = 0  # the seq whose state the files of that snapshot hold; what was read up to it fits
    schema: str = ""  # the widest one, as `TableSchema.to_json`
    accepted: tuple[str, ...] = ()  # damage of the log that this lineage begins with
    boot_id: str = ""  # of the machine's run in which the ops beside this were read
    is_closed: bool = True  # whether they are safely on disk
    has_ops: bool = False  # whether what is stored beside this is of this lineage

    @classmethod
    def first(cls, version: CatalogVersion, place: Path) -> LineageRecord:
        """Of a table that nothing is known of. `place` tells tables apart that have no UUID yet."""
        lineage = version.table_uuid or uuid5(NAMESPACE_URL, f"merutable:{place}#{place.stat().st_ino}")
        return cls(lineage, version.table_uuid, boot_id=_boot_id())

    def successor(self, version: CatalogVersion, accepted: tuple[str, ...] = ()) -> LineageRecord:
        """The next lineage, which knows nothing of the ops of this one."""
        is_anew = self.table_uuid is not None and version.table_uuid not in (None, self.table_uuid)
        if is_anew and version.table_uuid is not None:
            lineage = version.table_uuid
        elif accepted:  # the same damage leads to the same lineage, whoever finds it
            lineage = uuid5(version.table_uuid or self.lineage, "\n".join(accepted))
        else:
            lineage = uuid4()
        return LineageRecord(lineage, version.table_uuid, accepted=accepted, boot_id=_boot_id())

    def why_over(self, version: CatalogVersion) -> str | None:
        """Why the table's files can't be of this lineage; None when they can."""
        if self.table_uuid is not None and version.table_uuid != self.table_uuid:
            return f"the table has UUID {version.table_uuid}, had {self.table_uuid}: it was created anew"
        if version.snapshot_id < self.snapshot_id:
            now, before = version.snapshot_id, self.snapshot_id
            return f"the catalog is at snapshot {now}, was at {before}: it was put back"
        return None

    def why_unknown(self) -> str | None:
        """Why nobody knows how far the feed had got when it ended; None when what is stored says so."""
        boot_id = _boot_id()
        if self.is_closed or self.boot_id == boot_id:
            return None
        return "the machine went down while the feed ran, so the last ops it served may not be stored"

    def at(self, version: CatalogVersion, *, low_water: int, files_reach: int, schema: str) -> LineageRecord:
        return replace(
            self,
            table_uuid=self.table_uuid or version.table_uuid,
            snapshot_id=version.snapshot_id,
            low_water=low_water,
            files_reach=files_reach,
            schema=schema,
        )

    def opened(self) -> LineageRecord:
        return replace(self, boot_id=_boot_id(), is_closed=False, has_ops=True)

    def closed(self) -> LineageRecord:
        return replace(self, is_closed=True)

    # --- on disk ----------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: Path) -> LineageRecord | None:
        """None where there is none. Raises `ConfigError` for a file that isn't one."""
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} can't be read: {error}") from error
        try:
            if document.pop("format") != _FORMAT:
                raise ValueError("another format")
            document["lineage"] = UUID(document["lineage"])
            document["table_uuid"] = UUID(document["table_uuid"]) if document["table_uuid"] else None
            document["accepted"] = tuple(document["accepted"])
            return cls(**document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} isn't a lineage record of this program: {error}") from error

    def save(self, path: Path) -> None:
        """Replace the record durably. Raises `OSError`."""
        document = asdict(self) | {"format": _FORMAT, "lineage": str(self.lineage)}
        document["table_uuid"] = str(self.table_uuid) if self.table_uuid else None
        new = path.with_suffix(".new")
        with new.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _boot_id() -> str:
    """Names the run of the machine since its start; empty where the system doesn't say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
