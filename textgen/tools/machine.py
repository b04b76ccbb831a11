"""The machine's cores, memory, disk and GPUs. Does not import torch."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any, Final

from textgen.devices import has_cuda_driver

_CGROUP: Final = Path("/sys/fs/cgroup")


def cores() -> dict[str, Any]:
    """Number of cores, number that this process may use, and load average of the last minute (None if unknown)."""
    present = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")  # of the container
    if not period:
        quota, period = (_read(_CGROUP / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota.isdigit() and period.isdigit() and int(period):
        usable = min(usable, max(1, math.ceil(int(quota) / int(period))))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"present": present, "usable": usable, "load": load}


def memory() -> dict[str, int | None]:
    """Total bytes, and bytes available to this process; None if unknown."""
    try:
        total: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        total = None
    found = re.search(r"^MemAvailable: *(\d+)", _read(Path("/proc/meminfo")), re.MULTILINE)
    available = int(found[1]) * 1024 if found else None
    limit = _read(_CGROUP / "memory.max") or _read(_CGROUP / "memory/memory.limit_in_bytes")
    used = _read(_CGROUP / "memory.current") or _read(_CGROUP / "memory/memory.usage_in_bytes")
    if total is not None and limit.isdigit() and int(limit) < total:
        total = int(limit)
        left = max(0, total - (int(used) if used.isdigit() else 0))
        available = left if available is None else min(available, left)
    return {"total": total, "available": available}


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
    return {
        "path": str(path),
        "writable": holder.is_dir() and os.access(holder, os.W_OK | os.X_OK),
        "free": free,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
