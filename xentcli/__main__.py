"""`python -m xentcli` is the same as `xent`."""

from xentcli.cli import main

if __name__ == "__main__":
    main()
