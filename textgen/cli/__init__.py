"""The command `textgen`: one module per subcommand, no logic of its own."""

from textgen.cli.app import main

__all__ = ["main"]
