"""Finds the device to compute on, without importing torch where there is nothing to find."""

from __future__ import annotations

import ctypes
import platform
import re

from textgen.errors import DeviceError

NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve(requested: str) -> str:
    """The device to use for `requested`: "auto", "cpu", "mps", "cuda" or "cuda:N".

    "auto" is CUDA where there is one, then MPS, then the CPU. A device that was asked for and is
    missing raises DeviceError: never a silent switch.
    """
    if not isinstance(requested, str) or not NAMES.fullmatch(requested):
        raise DeviceError(f"no device is called {requested!r}; use auto, cpu, cuda, cuda:N or mps")
    chosen, missing = requested, ""
    if requested == "auto":
        has_cuda = has_cuda_driver() and _cuda_count()
        chosen = "cuda" if has_cuda else "mps" if _has_mps() else "cpu"
    elif requested == "mps":
        missing = "" if _has_mps() else "no MPS device is available"
    elif requested != "cpu":
        count = _cuda_count() if has_cuda_driver() else 0
        if count <= int(requested.partition(":")[2] or 0):
            missing = f"this machine has {count or 'no'} CUDA devices"
    if missing:
        raise DeviceError(
            f"device {requested!r} was requested, but {missing}; set `device` to cpu or auto"
        )
    return chosen


def has_cuda_driver() -> bool:
    """Whether the CUDA driver's library is on this machine; torch cannot use a GPU without it."""
    try:
        ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda_count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    if platform.system() != "Darwin":
        return False
    import torch

    return torch.backends.mps.is_available()
