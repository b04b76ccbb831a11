"""transformers without its progress bars and reports: the console belongs to the engine and its
observers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOCK: Final = (
    threading.Lock()
)  # the settings are of the whole process, and each block puts back what it found


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bar and no report while the block runs; what matters of a report is the block's
    to raise.
    """
    from transformers.utils import logging as settings

    with _LOCK:
        bars, verbosity = settings.is_progress_bar_enabled(), settings.get_verbosity()
        settings.disable_progress_bar()  # type: ignore[no-untyped-call]
        settings.set_verbosity(logging.CRITICAL)
        try:
            yield
        finally:
            settings.set_verbosity(verbosity)
            if bars:
                settings.enable_progress_bar()  # type: ignore[no-untyped-call]
