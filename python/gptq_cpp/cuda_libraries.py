"""cuBLAS and cuSOLVER of NVIDIA's own wheels (nvidia-cublas and the like), which lie in folders that the system does
not search."""

from __future__ import annotations

import ctypes
import glob
import os
import sys

_NAMES = ("libnvJitLink", "libcublasLt", "libcublas", "libcusparse", "libcusolver")  # each needs those before it
_loaded = False


def cuda_folders() -> list[str]:
    """Folders of such wheels: site-packages/nvidia/*/lib, and nvidia/cu13/lib of the newer ones."""
    folders = []
    for path in sys.path:
        folders += glob.glob(os.path.join(path or ".", "nvidia", "*", "lib"))
    return sorted(folder for folder in folders if any(_files(folder, name) for name in _NAMES))


def load_cuda_libraries() -> None:
    """Loads them once, where a GPU's driver and the wheels are there, so that the native module finds them by name."""
    global _loaded
    if _loaded or not os.path.exists("/proc/driver/nvidia/version"):
        return
    _loaded = True
    folders = cuda_folders()
    for name in _NAMES:
        for file in (file for folder in folders for file in _files(folder, name)):
            try:
                ctypes.CDLL(file)
            except OSError:  # of another version, or without its driver: the native module says what it misses
                continue


def _files(folder: str, name: str) -> list[str]:
    return sorted(glob.glob(os.path.join(folder, f"{name}.so.*")))
