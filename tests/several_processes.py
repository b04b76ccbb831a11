"""Several processes of one run, as torchrun would start them."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from commands import run_python

AT_PLACE = Path(__file__).parent / "../campaigns/at_place.py"


def run_together(size, *arguments, folder):
    """`python ARGUMENTS` in `folder` in so many processes at a time; what became of each, by
    rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
    }

    def start(rank):
        extra = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        return run_python(*arguments, folder=folder, extra=extra)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(start, range(size)))
