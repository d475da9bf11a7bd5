"""The command line: `catgan COMMAND ...`. Each command is a module that is imported only when it is called."""

from catgan.cli.main import main

__all__ = ["main"]
