"""Running a graph on a cluster: progress, interruption, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from distributed import Client, KilledWorker, as_completed
from distributed.comm import CommClosedError

from xentcli.errors import UnavailableError, XentError, reason


def run(
    client: Client,
    wanted: Sequence[Any],
    parts: Sequence[tuple[int, Any]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """Compute delayed objects, and return their values.

    `parts` are pairs of a number of rows and what is done when they are; `progress` is called with
    the rows done and their number. On an error or Ctrl-C everything is cancelled.

    Errors: those of the tasks; `UnavailableError` where workers die or the scheduler is gone.
    """
    futures: list[Any] = []
    try:
        futures = client.compute([*wanted, *(part for _, part in parts)])
        _watch(futures, [0] * len(wanted) + [rows for rows, _ in parts], progress)
        return list(client.gather(futures[: len(wanted)]))
    except XentError:
        _cancel(client, futures)
        raise
    except (KilledWorker, CommClosedError, CancelledError, TimeoutError, OSError) as error:
        _cancel(client, futures)
        raise explained(error) from error
    except BaseException:
        _cancel(client, futures)
        raise


def _watch(
    futures: list[Any], rows: list[int], progress: Callable[[int, int], None] | None
) -> None:
    """Wait for all futures; raise the first error."""
    by_key: dict[Any, int] = {}
    for future, count in zip(futures, rows, strict=True):
        by_key[future.key] = by_key.get(future.key, 0) + count
    done, total = 0, sum(rows)
    for future in as_completed(futures):
        if future.status != "finished":
            future.result()  # raises
            raise CancelledError(future.key)
        done += by_key.pop(future.key, 0)
        if progress and total:
            progress(done, total)


def _cancel(client: Client, futures: list[Any]) -> None:
    """Let the cluster forget these tasks; there may be no cluster any more."""
    with suppress(Exception):
        client.cancel(futures, force=True)


def explained(error: BaseException) -> XentError:
    """An error of dask's as one that says what happened and what to do."""
    if isinstance(error, KilledWorker):
        what = (
            "workers died again and again while they computed the same chunk; usually they were "
            "out of memory"
        )
        hint = "use smaller chunks, or workers with more memory"
        return UnavailableError("cluster", what, hint)
    what = f"the scheduler cannot be reached any more: {reason(error)}"
    return UnavailableError("cluster", what, "results that are not complete were discarded")
