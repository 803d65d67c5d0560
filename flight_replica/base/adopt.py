"""Make a base file our own, so that its owner may delete it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from flight_replica.errors import BaseNotUsable


def link_or_copy(source: Path, target: Path) -> Path:
    """`target`, now holding `source`'s bytes. Raises `BaseNotUsable` when `source` is gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise BaseNotUsable(f"base file {source.name} is gone") from error
    except OSError:  # another file system, or one without links
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError as error:
            raise BaseNotUsable(f"base file {source.name} is gone") from error
    return target
