"""Make a base file our own, so that its owner may delete it."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from flight_replica.errors import BaseError, BaseNotUsable

_log = logging.getLogger(__name__)

COPY_BYTES = 8 << 20  # of a file in an object store at a time: few requests, little memory


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


def copy_from(store: fs.FileSystem, source: str, target: Path) -> Path:
    """`target`, now holding the bytes of `source` in an object store, by `COPY_BYTES` at a time.

    Raises `BaseNotUsable` when it is gone, or the store doesn't give all of it.
    """
    began = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        with store.open_input_file(source) as remote, target.open("wb") as local:
            size_bytes = remote.size()
            while chunk := remote.read(COPY_BYTES):
                local.write(chunk)
            copied_bytes = local.tell()
    except FileNotFoundError as error:
        raise BaseNotUsable(f"base file {source} is gone") from error
    except (OSError, pa.ArrowException) as error:
        raise BaseNotUsable(f"base file {source} can't be copied to {target}: {error}") from error
    if copied_bytes != size_bytes:
        raise BaseNotUsable(f"base file {source}: {copied_bytes} bytes came, expected {size_bytes}")
    seconds = time.monotonic() - began
    _log.debug("base file copied file=%s bytes=%d seconds=%.3f", source, copied_bytes, seconds)
    return target
