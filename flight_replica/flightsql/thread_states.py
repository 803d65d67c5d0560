"""What Python keeps of a thread that isn't its own lasts as long as a call that the thread works for.

pyarrow enters Python several times a call, on threads of gRPC's. Each time Python would make a state for the
thread, map memory for its frames, and undo both when it is left: more than ten pairs of `mmap` and `munmap`
for one small query, nearly a tenth of the server's time. Who holds the state makes the entries between cheap.
Source: Python's C API, "Non-Python created threads".
"""

from __future__ import annotations

import ctypes
import threading

__all__ = ["HeldState"]

_ensure = ctypes.pythonapi.PyGILState_Ensure
_release = ctypes.pythonapi.PyGILState_Release


class HeldState:
    """The state of the thread that makes it, from then until `let_go`, on the same thread."""

    __slots__ = ("_before", "_thread")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._before = _ensure()  # counts one entry more; this thread is in Python already

    def let_go(self) -> None:
        """Once. What the thread kept goes when it leaves Python the next time."""
        assert threading.get_ident() == self._thread, "a thread's state is let go by that thread"
        _release(self._before)
