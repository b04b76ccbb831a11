"""How the processes of a run meet in a store that torchrun may keep over its restarts."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any, Final

_BETWEEN: Final = 0.02  # seconds between two looks


def agreed_name(store: Any, rank: int, size: int, timeout: float) -> str:
    """A name that all processes of this start have, and those of no other.

    The numbers of restarts do not serve: torchrun counts those of each machine by itself. The first process makes the
    name, and gives it to each of the others, which asks under a name of its own: what processes that have ended left in
    the store is neither asked nor answered again. Raises RuntimeError if not all have come in time.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"asking/{rank}", own)
        store.wait([f"answer/{own}"], timedelta(seconds=timeout))
        name: str = store.get(f"answer/{own}").decode()
        store.set(f"has/{name}/{rank}", "")
        return name
    missing, answered, end = set(range(1, size)), set(), time.monotonic() + timeout
    while missing:
        for other in missing:
            asking = (
                store.get(f"asking/{other}").decode() if store.check([f"asking/{other}"]) else ""
            )
            if asking and asking not in answered:
                answered.add(asking)
                store.set(f"answer/{asking}", own)
        missing = {other for other in missing if not store.check([f"has/{own}/{other}"])}
        if time.monotonic() > end:
            raise RuntimeError("timed out")
        time.sleep(_BETWEEN if missing else 0)
    return own
