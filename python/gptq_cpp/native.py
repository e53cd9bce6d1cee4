"""Loads the native module, and what both faces of the package need of it."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, Mapping

# OpenBLAS starts a thread for each core when it is loaded; the jobs have threads of their own.
_THREADS = "OPENBLAS_NUM_THREADS"
_given = os.environ.get(_THREADS)
os.environ[_THREADS] = "1"
try:
    from . import _native
finally:
    if _given is None:
        del os.environ[_THREADS]
    else:
        os.environ[_THREADS] = _given

__version__ = _native.version()
JOB_OPTIONS: dict[str, dict[str, Any]] = {row["key"]: row for row in _native.job_options()}
EVALUATION_OPTIONS: dict[str, dict[str, Any]] = {row["key"]: row for row in _native.evaluation_options()}
GENERATION_OPTIONS: dict[str, dict[str, Any]] = {row["key"]: row for row in _native.generation_options()}
RECIPE_KEYS = tuple(key for key, row in JOB_OPTIONS.items() if row["group"] == "recipe")
RUN_KEYS = tuple(key for key, row in JOB_OPTIONS.items() if row["group"] != "recipe" and key != "calibration")


def unknown_keyword(function: str, key: str, known: Iterable[str]) -> TypeError:
    """The error for a keyword that is not known, with the one that is perhaps meant."""
    from difflib import get_close_matches

    close = get_close_matches(key, list(known), n=1, cutoff=0.6)
    hint = f": did you mean {close[0]!r}?" if close else ""
    return TypeError(f"{function}() got an unexpected keyword argument {key!r}{hint}")


def plain(key: str, value: Any) -> bool | int | float | str:
    """A value as the option table takes it: maps and lists as JSON, paths and devices as text."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return json.dumps({str(name): _plain_entry(entry) for name, entry in value.items()})
    if isinstance(value, (list, tuple)):
        return json.dumps(value)
    if hasattr(value, "item") and not getattr(value, "shape", ()):  # a number of numpy or torch
        return plain(key, value.item())
    if hasattr(value, "value") and isinstance(value.value, (int, str)):  # an enum
        return value.value
    raise TypeError(f"{key}: {type(value).__name__} is no value of an option")


def _plain_entry(entry: Any) -> Any:
    if entry is None or isinstance(entry, (bool, int, float, str, list, dict)):
        return entry
    return str(entry)  # torch.device("cuda:0") -> "cuda:0"


def plain_options(function: str, options: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The options that are given, None standing for the default. Raises TypeError for a keyword that is not known."""
    known = tuple(known)
    for key in options:
        if key not in known:
            raise unknown_keyword(function, key, known)
    return {key: plain(key, value) for key, value in options.items() if value is not None}


def described(rows: Iterable[Mapping[str, Any]], indent: str = "    ") -> str:
    """Lines for a docstring: keyword, default and help of each option."""
    lines = []
    for row in rows:
        if not row["help"] and not row["off_help"]:
            default, text = "None", "rules for single modules, as GPTQModel writes them: {pattern: {...}}"
        else:
            default = ("True" if row["is_on"] else "False") if row["kind"] == "flag" else row["initial"]
            text = row["help"] or "False: " + row["off_help"]
        lines.append(f"{indent}{row['key']}" + (f" [{default}]" if default else "") + f": {text}.")
    return "\n".join(lines)


def given_path(what: str, path: Any) -> str:
    """A path as text; the model's object is refused with the way out."""
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    raise TypeError(
        f"{what}: give the path of a folder, not {type(path).__name__} (gptq_cpp.GPTQQuantizer takes models in memory)"
    )
