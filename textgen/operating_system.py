"""Whether the operating system is Windows, for the few modules that have to know."""

from __future__ import annotations

import sys

WINDOWS = sys.platform == "win32"
