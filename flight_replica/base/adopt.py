"""Make a base file our own, so that its owner may delete it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from flight_replica.errors import BaseError, BaseNotUsable


def link_or_copy(source: Path, target: Path) -> Path:
    """`target`, now holding `source`'s bytes. Raises `BaseNotUsable` when `source` is gone.

    An older file of the name is replaced as a name, never written to: as a hard link it may be
    somebody else's file still.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.exists():
            if target.samefile(source):
                return target
            target.unlink()
        _link_or_copy(source, target)
    except FileNotFoundError as error:
        raise BaseNotUsable(f"base file {source} is gone") from error
    except OSError as error:
        raise BaseError(f"base file {source} can't be taken over as {target}: {error}") from error
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
