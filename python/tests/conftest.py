"""What the tests share: the demo model of the repository, and a quantized copy of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As every test's job takes the CPU: on a machine with a GPU too.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import gptq_cpp as gptq  # noqa: E402

DEMO = Path(os.environ.get("GPTQ_DEMO", Path(__file__).parents[2] / "demo"))


@pytest.fixture(scope="session")
def model() -> Path:
    return DEMO / "model"


@pytest.fixture(scope="session")
def heldout() -> str:
    return (DEMO / "heldout.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def ids(model: Path) -> list[list[int]]:
    """16 sequences of 128 tokens."""
    tokens = gptq.tokenize(model, (DEMO / "calibration.txt").read_text(encoding="utf-8")[:40_000])
    return [tokens[128 * i : 128 * (i + 1)] for i in range(16)]


@pytest.fixture(scope="session")
def quantized(model: Path, ids: list[list[int]], tmp_path_factory: pytest.TempPathFactory):
    """(folder, report) of 4 bits in groups of 64."""
    out = tmp_path_factory.mktemp("quantized") / "model"
    report = gptq.quantize(model, out, gptq.Recipe(bits=4, group_size=64), ids, sequence_length=128)
    return out, report


def weights(folder: Path) -> bytes:
    """All safetensors of a folder."""
    return b"".join(file.read_bytes() for file in sorted(Path(folder).glob("*.safetensors")))
