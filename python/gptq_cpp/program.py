"""The command line `gptq`: starts the program of the wheel in the place of this process."""

from __future__ import annotations

import os
import sys

from .cuda_libraries import cuda_folders


def path() -> str:
    """The program's file."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "gptq")


def main() -> None:
    environment = dict(os.environ)
    folders = cuda_folders() if os.path.exists("/proc/driver/nvidia/version") else []
    if folders:
        known = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = ":".join([*([known] if known else []), *folders])
    sys.stdout.flush()
    os.execve(path(), ["gptq", *sys.argv[1:]], environment)
