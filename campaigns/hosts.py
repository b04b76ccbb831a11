"""torchrun over two hosts: network namespaces of this machine with addresses of their own, and the link between them.

Usage: python campaigns/hosts.py [--timeout 10]

Needs root, for `ip netns`. Trains in one process; then in one process on each host, and compares the losses; then cuts
the link in the middle of a run (`ip link set down`): both sides must end within the timeout, with one line each from
textgen at most; then joins the link again, and the run must go on to the losses of the first. Removes what it made.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from torchrun import SHUTDOWN, STARTING, apart, finish, piped, write
from torchrun import start as start_here

HOSTS: Final = (("tg-a", "10.231.7.1"), ("tg-b", "10.231.7.2"))
PORT: Final = 29417


def ip(*arguments: str) -> None:
    """`ip ARGUMENTS`. Raises CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[None]:
    """Two namespaces, and a pair of interfaces named as they are."""
    try:
        for name, _ in HOSTS:
            ip("netns", "add", name)
        (first, _), (second, _) = HOSTS
        ip(
            "link",
            "add",
            first,
            "netns",
            first,
            "type",
            "veth",
            "peer",
            "name",
            second,
            "netns",
            second,
        )
        for name, address in HOSTS:
            ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name, _ in HOSTS:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start(place: int, folder: Path, output: str, timeout: float) -> subprocess.Popen[str]:
    """torchrun with one process on a host."""
    name, _ = HOSTS[place]
    launcher = f"torch.distributed.run --nnodes=2 --node-rank={place} --nproc-per-node=1 --shutdown-timeout={SHUTDOWN}"
    where = f"--master-addr={HOSTS[0][1]} --master-port={PORT}"
    command = [
        "ip",
        "netns",
        "exec",
        name,
        sys.executable,
        "-m",
        *f"{launcher} {where} -m textgen run".split(),
    ]
    # Without its name gloo takes the address of the machine's.
    extra = {
        "OMP_NUM_THREADS": "1",
        "TIMEOUT": str(timeout),
        "GLOO_SOCKET_IFNAME": name,
    }
    return piped([*command, "p.toml", "-q", "-o", output], folder, extra)


def ended(processes: list[subprocess.Popen[str]], seconds: float) -> list[list[str]]:
    """What textgen said on each host, once both have ended. Raises TimeoutExpired."""
    begun = time.monotonic()
    until = begun + seconds
    said = []
    for process in processes:
        _, errors = process.communicate(timeout=max(1, until - time.monotonic()))
        lines = [line for line in errors.splitlines() if line.startswith("textgen: ")]
        print(
            f"  exit {process.returncode} after {time.monotonic() - begun:.0f} s",
            *lines,
            sep="; ",
            flush=True,
        )
        said.append(lines)
    return said


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timeout", type=float, default=10)
    parser.add_argument(
        "--starting", type=float, default=60, help="timeout where nothing is to fail"
    )
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, two_hosts():
        folder = Path(made)
        write(folder, "lstm", given.steps)
        finish(start_here(1, folder, "alone", given.starting))
        print("over two hosts:", flush=True)
        ended([start(place, folder, "both", given.starting) for place in (0, 1)], STARTING)
        print(f"  losses within {apart(folder / 'alone', folder / 'both'):.1e}", flush=True)
        print("with a link that is cut:", flush=True)
        processes = [start(place, folder, "cut", given.timeout) for place in (0, 1)]
        until = time.monotonic() + STARTING
        while not list(folder.glob("cut/checkpoints/step-*")) and time.monotonic() < until:
            time.sleep(0.05)
        ip("-n", HOSTS[0][0], "link", "set", HOSTS[0][0], "down")
        begun = time.monotonic()
        try:
            said = ended(processes, given.timeout * 3 + SHUTDOWN + 60)
        finally:
            for process in processes:
                process.kill()
        took = time.monotonic() - begun
        print(
            f"  both had ended {took:.0f} s after the cut, {[len(lines) for lines in said]} lines",
            flush=True,
        )
        ip("-n", HOSTS[0][0], "link", "set", HOSTS[0][0], "up")
        print("with the link again:", flush=True)
        ended([start(place, folder, "cut", given.starting) for place in (0, 1)], STARTING)
        far = apart(folder / "alone", folder / "cut")
        print(f"  losses within {far:.1e}", flush=True)
        sys.exit(not (far < 1e-4 and all(len(lines) <= 1 for lines in said)))


if __name__ == "__main__":
    main()
