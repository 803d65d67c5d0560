"""`Folder`: a table's directory as its reader sees it, on a local disk or in an object store.

Everything is by paths relative to the folder. Object stores are reached through pyarrow's file systems;
credentials come from where those look for them (environment, profile, instance role), never from a URI.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from flight_replica.errors import BaseError, BaseNotUsable, ConfigError

_SECRET_OPTIONS = {"access_key", "secret_key", "session_token", "external_id", "sas_token", "account_key"}


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory that somebody else writes. Holds nothing open; safe to share between threads."""

    filesystem: fs.FileSystem
    root: str  # in the file system
    is_local: bool
    shown: str  # for people; without options

    @classmethod
    def at(cls, place: Folder | Path | str) -> Folder:
        """The folder of a path, a `file://` URI or an object store's URI such as
        `s3://bucket/prefix?endpoint_override=http://host:9000&region=us-east-1`.

        Raises `ConfigError` for a URI that can't be one, or that holds a secret.
        """
        if isinstance(place, Folder):
            return place
        scheme = urlsplit(place).scheme if isinstance(place, str) and "://" in place else ""
        if scheme == "file" and urlsplit(str(place)).netloc not in ("", "localhost"):
            raise ConfigError(f"{place}: a file on another host can't be read")
        if scheme in ("", "file"):
            path = unquote(urlsplit(str(place)).path) if scheme else str(place)
            return cls(fs.LocalFileSystem(), path, True, path)
        return cls._in_a_store(str(place))

    @classmethod
    def _in_a_store(cls, uri: str) -> Folder:
        parts = urlsplit(uri)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        if "@" in parts.netloc or options & _SECRET_OPTIONS:
            raise ConfigError(f"{shown}: credentials don't belong in a URI: give them in the environment")
        try:
            filesystem, root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise ConfigError(f"{shown}: no object store that can be read: {error}") from error
        return cls(filesystem, root.rstrip("/"), False, shown)

    def location(self, path: str) -> str:
        """Where `path` lies in the file system: a local path, or bucket and key."""
        return f"{self.root}/{path}"

    def open(self, path: str) -> pa.NativeFile:
        """For reading at random. Raises `OSError`, `FileNotFoundError`."""
        return self.filesystem.open_input_file(self.location(path))

    def read(self, path: str) -> bytes:
        """A whole small file. Raises as `open`."""
        with self.open(path) as file:
            data: bytes = file.read()
        return data

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted; none where there is no such directory. Raises `OSError`."""
        selector = fs.FileSelector(self.location(directory), allow_not_found=True)
        return sorted(found.base_name for found in self.filesystem.get_file_info(selector))

    def exists(self) -> bool:
        """Whether there is anything of it. Raises `OSError`."""
        return bool(self.filesystem.get_file_info(self.root).type != fs.FileType.NotFound)

    @contextmanager
    def reading(self, what: str, problem: str = "can't be read") -> Iterator[None]:
        """Raise what goes wrong inside as `BaseNotUsable` (gone; the store doesn't answer) or `BaseError`."""
        try:
            yield
        except FileNotFoundError as error:
            raise BaseNotUsable(f"{what} is gone") from error
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # a damaged footer's texts
            is_passing = not self.is_local and isinstance(error, OSError)
            raise (BaseNotUsable if is_passing else BaseError)(f"{what} {problem}: {error}") from error
