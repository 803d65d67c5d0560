"""pyarrow without pandas, for commands: none of them needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def keep_pandas_out() -> None:
    """Have pyarrow begin without pandas; to be called before anything is done with pyarrow.

    It looks for pandas with the first Python value that it converts, and imports it where it is installed:
    0.15 s and 40 MB for nothing. It looks again when a frame is asked for, so nothing is lost by this.
    """
    hiding = _NoPandas()
    sys.meta_path.insert(0, hiding)
    try:
        import pyarrow as pa

        pa.scalar(0)
    finally:
        sys.meta_path.remove(hiding)


class _NoPandas:
    """A finder of modules, by which pandas isn't installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas isn't looked for now", name=name)
