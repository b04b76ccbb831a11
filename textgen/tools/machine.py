"""The machine's cores, memory, disk and GPUs. Does not import torch."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from textgen.devices import has_cuda_driver

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CGROUP: Final = Path("/sys/fs/cgroup")
_NO_LIMIT: Final = 1 << 60  # what version 1 of cgroups says where there is no limit


def cores() -> dict[str, Any]:
    """Number of cores, number that this process may use, and load average of the last minute (None if unknown)."""
    present = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    if (share := _core_quota()) is not None:
        usable = min(usable, max(1, math.ceil(share)))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"present": present, "usable": usable, "load": load}


def memory() -> dict[str, int | None]:
    """Total bytes, and bytes available to this process; None if unknown."""
    try:
        total: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        total = None
    available = None
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _cgroup_memory()
    if total is not None and limit is not None and limit < total:
        total = limit
        left = max(0, limit - (used or 0))
        available = left if available is None else min(available, left)
    return {"total": total, "available": available}


def threads(environment: Mapping[str, str], torch: Any = None) -> dict[str, Any]:
    """The environment variables that set the number of threads, and torch's own number if it is imported."""
    found: dict[str, Any] = {name: environment.get(name) for name in THREAD_VARIABLES}
    return {**found, "torch": None if torch is None else torch.get_num_threads()}


def gpu_driver() -> str | None:
    """The kind of GPU driver: "CUDA", "ROCm" or "MPS"; None if none is found."""
    if has_cuda_driver() or shutil.which("nvidia-smi"):
        return "CUDA"
    if Path("/dev/kfd").exists():
        return "ROCm"
    return "MPS" if platform.system() == "Darwin" and platform.machine() == "arm64" else None


def devices(torch: Any) -> list[dict[str, Any]]:
    """The devices other than the CPU that torch can use: name, model, and bytes of memory in all and free."""
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        model = torch.cuda.get_device_name(number)
        found.append({"name": f"cuda:{number}", "model": model, "memory": total, "free": free})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "model": platform.machine(), "memory": None, "free": None})
    return found


def folder(path: Path) -> dict[str, Any]:
    """Whether a folder, or the nearest one that would hold it, can be written to, and the bytes free on its disk."""
    holder = path.absolute()
    while not holder.exists() and holder != holder.parent:
        holder = holder.parent
    try:
        free: int | None = shutil.disk_usage(holder).free
    except OSError:
        free = None
    return {"path": str(path), "writable": holder.is_dir() and os.access(holder, os.W_OK | os.X_OK), "free": free}


def _core_quota() -> float | None:
    """The CPU quota of the container, in cores; None if it is not limited."""
    quota, _, period = _read(_CGROUP / "cpu.max").strip().partition(" ")
    if not period:
        quota = _read(_CGROUP / "cpu/cpu.cfs_quota_us").strip()
        period = _read(_CGROUP / "cpu/cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _cgroup_memory() -> tuple[int | None, int | None]:
    """Memory limit and usage of the container, in bytes."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        texts = [_read(_CGROUP / name).strip() for name in (limit, used)]
        if texts[0].isdigit() and int(texts[0]) < _NO_LIMIT:
            return int(texts[0]), int(texts[1]) if texts[1].isdigit() else None
    return None, None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
