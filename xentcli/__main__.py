"""Entry point of `xent`, `xentcli` and `python -m xentcli`."""

from __future__ import annotations

import gc
from typing import NoReturn

from xentcli.signals import leave, watch_signals

# New objects per search for garbage in cycles: at Python's 700 a short command searches for 10 ms,
# in modules that stay.
GARBAGE_EVERY = 20_000


def main() -> NoReturn:
    """Run the command line of this process."""
    watch_signals()  # before the imports, which take longest
    gc.set_threshold(GARBAGE_EVERY)
    from xentcli.cli import main as run

    code: object = None
    try:
        run()
    except SystemExit as end:
        code = end.code
    leave(code)


if __name__ == "__main__":
    main()
