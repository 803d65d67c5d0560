"""Which manifest of a merutable table is the current one: in a catalog, and in a mirror of it.

A catalog names it in `version-hint.text`, a mirror in `metadata/low_water.txt`; a mirror has neither hint
nor `.metadata.*` files. Source: merutable format, sections 4 and 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flight_replica.base.folder import Folder
from flight_replica.errors import BaseError, BaseNotUsable

_HINT = "version-hint.text"
_LOW_WATER = "metadata/low_water.txt"
_VERSION = re.compile("[0-9]{1,19}")
_CATALOG_MANIFEST = re.compile(r"v[0-9]+\.metadata\.(pb|json)")
_MIRROR_MANIFEST = re.compile(r"v([0-9]{1,19})\.manifest\.bin")


@dataclass(frozen=True, slots=True)
class Head:
    """Which manifest is current. The snapshot in it may have another number: its own."""

    number: int
    is_mirror: bool

    def read(self, folder: Folder) -> tuple[str, bytes]:
        """(the manifest's name, its bytes). Raises `BaseNotUsable` when it is gone, `BaseError`."""
        if self.is_mirror:
            name = f"v{self.number}.manifest.bin"
            with folder.reading(f"mirror {folder.shown}: {name}, which {_LOW_WATER} names,"):
                return name, folder.read(f"metadata/{name}")
        for name in (f"v{self.number}.metadata.pb", f"v{self.number}.metadata.json"):
            with folder.reading(f"manifest {name}"):
                try:
                    return name, folder.read(f"metadata/{name}")
                except FileNotFoundError:
                    continue  # the older form counts only where the newer one isn't there
        raise BaseNotUsable(
            f"catalog {folder.shown}: {_HINT} names version {self.number}, "
            f"but v{self.number}.metadata.pb is gone"
        )


def find_head(folder: Folder) -> Head | None:
    """The current manifest of the catalog or mirror in `folder`, None where nothing was committed yet.

    Raises `BaseNotUsable` for what passes by itself, `BaseError` for what is written there and is wrong.
    """
    with folder.reading(f"catalog {folder.shown}: {_HINT}"):
        try:
            return Head(_number(folder.read(_HINT), f"catalog {folder.shown}: {_HINT}"), is_mirror=False)
        except FileNotFoundError:
            names = folder.names("metadata")
    left = [name for name in names if _CATALOG_MANIFEST.fullmatch(name)]
    if left:  # also for a moment during the very first commit
        raise BaseNotUsable(f"catalog {folder.shown}: {_HINT} is missing, but {left[-1]} exists")
    return _mirror_head(folder, names)


def _mirror_head(folder: Folder, names: list[str]) -> Head | None:
    numbers = sorted(int(found[1]) for name in names if (found := _MIRROR_MANIFEST.fullmatch(name)))
    if not numbers and _LOW_WATER.rpartition("/")[2] not in names:
        return None
    with folder.reading(f"mirror {folder.shown}: {_LOW_WATER}"):
        try:
            text = folder.read(_LOW_WATER)
        except FileNotFoundError as error:  # for a moment during the very first upload
            raise BaseNotUsable(
                f"mirror {folder.shown}: {_LOW_WATER} is missing, but v{numbers[-1]}.manifest.bin exists"
            ) from error
    low_water = _number(text, f"mirror {folder.shown}: {_LOW_WATER}")
    above = [number for number in numbers if number > low_water]
    if len(above) > 1:  # one can be an upload under way
        raise BaseNotUsable(
            f"mirror {folder.shown}: {_LOW_WATER} went back to {low_water}, but manifests up to "
            f"v{above[-1]} exist: the table was probably created anew, and the engine keeps the old "
            "one's manifests in its place; give the new table an empty mirror"
        )
    return Head(low_water, is_mirror=True)


def _number(data: bytes, place: str) -> int:
    text = data.decode("ascii", "replace").strip()
    if not _VERSION.fullmatch(text):
        raise BaseError(f"{place} is {text[:50]!r}, expected a version number")
    return int(text)
