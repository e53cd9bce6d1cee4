"""The package as a whole: what it imports, how fast, its version, its types, the program it brings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gptq_cpp as gptq
from gptq_cpp import native, program

PACKAGE = Path(gptq.__file__).parent


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_importing_brings_neither_torch_nor_numpy():
    loaded = run(
        "import sys, gptq_cpp; print(*[m for m in ('torch', 'numpy', 'transformers', 'tqdm') if m in sys.modules])"
    )
    assert loaded.strip() == ""


def test_importing_takes_less_than_a_tenth_of_a_second():
    """Of the processor, as other tests may keep it busy."""
    code = "import time; t = time.process_time(); import gptq_cpp; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(7)) < 0.1


def test_importing_leaves_the_environment_as_it_was():
    code = """
import os
before = dict(os.environ)
import gptq_cpp
print(before == dict(os.environ), len(os.listdir("/proc/self/task")))
"""
    assert run(code).split() == ["True", "1"]


def test_the_version_is_that_of_the_library_and_the_program():
    assert re.fullmatch(r"\d+\.\d+\.\d+", gptq.__version__)
    done = subprocess.run([program.path(), "--version"], capture_output=True, text=True, check=True)
    assert gptq.__version__ in done.stdout


def test_the_package_runs_as_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "gptq_cpp", "devices", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert [device["name"] for device in json.loads(done.stdout)] == [device.name for device in gptq.devices()]


def test_every_public_name_is_there_and_documented():
    for name in gptq.__all__:
        value = getattr(gptq, name)
        assert value is not None
        if callable(value):
            assert value.__doc__, name


def test_the_types_of_keywords_are_those_of_the_tables():
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    try:
        import python_keywords
    finally:
        sys.path.pop(0)
    assert (PACKAGE / "_keywords.pyi").read_text(encoding="utf-8") == python_keywords.text()


def test_docstrings_name_every_option():
    for key in native.RECIPE_KEYS:
        assert f"    {key}" in gptq.Recipe.__doc__
    for key in native.RUN_KEYS:
        assert f"    {key}" in gptq.quantize.__doc__


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    stubs = (PACKAGE / "_native.pyi").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^def (\w+)", stubs, re.M)) == sorted(
        n for n in dir(native._native) if not n.startswith("_")
    )


def test_cuda_libraries_of_wheels_are_found_in_their_folders(tmp_path, monkeypatch):
    from gptq_cpp import cuda_libraries

    folder = tmp_path / "nvidia" / "cublas" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcublas.so.13").touch()
    (tmp_path / "nvidia" / "nccl" / "lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert cuda_libraries.cuda_folders() == [str(folder)]
