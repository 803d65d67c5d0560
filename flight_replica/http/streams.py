"""`Streams`: the event streams that pages hold open; bounded, and ended when the server ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

CHECK_SECONDS = 5.0  # how often it is looked whether a stream's visitor is still let in


class Streams:
    """Used on the loop's thread alone."""

    def __init__(self, streams_max: int) -> None:
        self._streams_max = streams_max
        self._closing = asyncio.Event()
        self._open = 0

    @property
    def count(self) -> int:
        return self._open

    def close(self) -> None:
        """End every stream, and those that begin later."""
        self._closing.set()

    async def pause(self, seconds: float) -> bool:
        """Whether the server goes on after so long; False as soon as it ends."""
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def response(self, events: AsyncIterator[str], is_still_good: Callable[[], bool]) -> Response:
        """The events as `text/event-stream`, as long as their visitor may see them.

        `events` yields at least every few seconds and pauses by `pause`. 503 where too many are open.
        """
        if self._open >= self._streams_max or self._closing.is_set():
            text = f"streams_max: {self._streams_max} pages are open already\n"
            return PlainTextResponse(text, 503, {"retry-after": "10"})
        self._open += 1
        return _EventStream(self._counted(events, is_still_good), self._ended)

    def _ended(self) -> None:
        self._open -= 1

    async def _counted(
        self, events: AsyncIterator[str], is_still_good: Callable[[], bool]
    ) -> AsyncIterator[str]:
        checked_at = time.monotonic()
        async for event in events:
            if time.monotonic() - checked_at >= CHECK_SECONDS:
                if not await run_in_threadpool(is_still_good):
                    return
                checked_at = time.monotonic()
            yield event
            if self._closing.is_set():
                return


class _EventStream(StreamingResponse):
    """Tells its end, also where nothing of it was sent."""

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._on_end = on_end

    async def __call__(self, *arguments: object) -> None:
        try:
            await super().__call__(*arguments)  # type: ignore[arg-type]
        finally:
            self._on_end()
