"""Whether this is Windows, for the few places that have to know."""

from __future__ import annotations

import sys

WINDOWS = sys.platform == "win32"
