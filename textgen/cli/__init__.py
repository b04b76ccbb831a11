"""The command `textgen`: one module per subcommand."""

import sys

try:
    from textgen.cli.app import main
except KeyboardInterrupt:  # pressed so early that main is not there yet to answer it
    sys.exit(130)

__all__ = ["main"]
