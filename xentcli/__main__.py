"""Entry point of `xent`, `xentcli` and `python -m xentcli`."""

from __future__ import annotations

from typing import NoReturn

from xentcli.signals import watch_signals


def main() -> NoReturn:
    """Run the command line of this process."""
    watch_signals()  # before the imports, which take longest
    from xentcli.cli import main as run

    run()


if __name__ == "__main__":
    main()
