"""Reading, computing and writing at the same time, each in a thread of its own.

A few pieces are under way at once. Whatever fails first, in whichever thread, ends all three
and is raised where the pipeline was started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

# Pieces that exist at the same time: one is read, one computed, one written, and one waits
# before each of the latter two. A buffer may be used again for the piece that many further on.
ALIVE = 5


class ClosedError(Exception):
    """The other end of a channel is gone."""


class Channel(Generic[T]):
    """A queue of one place between two threads."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed = False

    def put(self, item: T) -> None:
        """Hand over an item, after waiting for a free place."""
        with self._changed:
            while self._items and not self._closed:
                self._changed.wait()
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """The pieces, until the channel is closed."""
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._changed.wait()
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def close(self, *, drop: bool = False) -> None:
        """End the channel; `drop` also discards what waits in it."""
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()


class Pipeline(Generic[T, U]):
    """One run from a source to a sink."""

    def __init__(self) -> None:
        self._read: Channel[T] = Channel()
        self._computed: Channel[U] = Channel()
        self._error: BaseException | None = None

    def run(
        self, source: Iterator[T], compute: Callable[[T], U], write: Callable[[U], None]
    ) -> None:
        """Take every piece from the source, compute it in this thread, and write it."""
        writer = self._started(self._drain, write)
        self._started(self._feed, source)
        self._guarded(self._work, compute)
        if self._error is None:
            writer.join()
        if self._error is not None:
            raise self._error

    def _started(self, function: Callable[..., None], argument: object) -> Thread:
        """A thread that does a part, in this thread's context: NumPy's error settings are in it."""
        parts = self._guarded, function, argument
        thread = Thread(target=copy_context().run, args=parts, daemon=True)
        thread.start()
        return thread

    def _feed(self, source: Iterator[T]) -> None:
        for piece in source:
            self._read.put(piece)
        self._read.close()

    def _work(self, compute: Callable[[T], U]) -> None:
        for piece in self._read:
            self._computed.put(compute(piece))
        self._computed.close()

    def _drain(self, write: Callable[[U], None]) -> None:
        for result in self._computed:
            write(result)

    def _guarded(self, function: Callable[..., None], argument: object) -> None:
        """Run a thread's part; its failure, unless another came first, ends the others."""
        try:
            function(argument)
        except ClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 (it is raised again by `run`)
            self._error = self._error or error
            self._read.close(drop=True)
            self._computed.close(drop=True)
