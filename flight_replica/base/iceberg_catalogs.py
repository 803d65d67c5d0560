"""Iceberg tables by their name in a catalog that pyiceberg knows: `CATALOG/NAMESPACE.TABLE`.

How to reach the catalog, credentials too, stands where pyiceberg looks for it: in `.pyiceberg.yaml` or in the
environment (`PYICEBERG_CATALOG__NAME__URI`, …), never in our own settings.
"""

from __future__ import annotations

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from flight_replica.errors import BaseNotUsable, ConfigError

__all__ = ["CatalogTable"]


class CatalogTable:
    """One table in a catalog. The catalog is opened when it is first asked; use by one thread at a time."""

    def __init__(self, place: str) -> None:
        """Raises `ConfigError` for a place that isn't `CATALOG/NAMESPACE.TABLE`."""
        self._catalog_name, _, self._table_name = place.partition("/")
        namespace, _, table = self._table_name.rpartition(".")
        if not (self._catalog_name and namespace and table):
            raise ConfigError(f"Iceberg table {place!r}: expected CATALOG/NAMESPACE.TABLE")
        self._catalog: Catalog | None = None

    def load(self) -> Table:
        """The table as it is now.

        Raises `ConfigError` where pyiceberg has no such catalog in its configuration, `BaseNotUsable` while
        the catalog doesn't answer or has no such table.
        """
        place = f"Iceberg catalog {self._catalog_name!r}"
        if self._catalog is None:
            try:
                self._catalog = load_catalog(self._catalog_name)
            except ValueError as error:  # also its own name for what is missing
                raise ConfigError(f"{place} isn't configured for pyiceberg: {_line(error)}") from error
            except Exception as error:  # of whatever library the catalog needs
                raise BaseNotUsable(f"{place} can't be opened: {_line(error)}") from error
        try:
            return self._catalog.load_table(self._table_name)
        except NoSuchTableError as error:
            raise BaseNotUsable(f"{place} has no table {self._table_name!r}") from error
        except Exception as error:  # of whatever library the catalog needs
            raise BaseNotUsable(f"{place}: table {self._table_name!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
