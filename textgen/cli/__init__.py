"""The command `textgen`: one module per subcommand; and what commands of plugins take from it."""

import sys

try:
    from textgen.lazy import names_of as _names_of

    __all__, __getattr__ = _names_of(__name__)
    __getattr__("main")
except KeyboardInterrupt:  # pressed so early that main is not there yet to answer it
    sys.exit(130)
