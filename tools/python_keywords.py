#!/usr/bin/env python3
"""Writes python/gptq_cpp/_keywords.pyi, the types of keywords, from the tables of options.

PYTHONPATH=build/release/python python3 tools/python_keywords.py > python/gptq_cpp/_keywords.pyi
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from gptq_cpp import native

# Options that take more than their kind says: lists and maps travel as JSON.
_TYPES = {
    "group_size": 'int | Literal["auto"]',
    "modules_in_block_to_quantize": "str | list[str] | list[list[str]]",
    "dynamic": "Mapping[str, Mapping[str, Any]]",
    "device_map": "str | PathLike[str] | Mapping[str, Any]",
    "max_memory": "str | Mapping[Any, str | int]",
    "spill_dir": "str | PathLike[str]",
    "max_read_rate": "int | str",
    "max_shard_size": "int | str",
    "sym": "bool",
}
_KINDS = {"flag": "bool", "integer": "int", "natural": "int", "number": "float", "text": "str"}


def type_of(row: Mapping[str, Any]) -> str:
    if row["key"] in _TYPES:
        return _TYPES[row["key"]]
    if row["words"]:
        return "Literal[" + ", ".join(f'"{word}"' for word in row["words"]) + "]"
    return _KINDS[row["kind"]]


def typed_dict(name: str, summary: str, rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [f"class {name}(TypedDict, total=False):", f'    """{summary}"""', ""]
    lines += [f"    {row['key']}: {type_of(row)} | None" for row in rows]
    return "\n".join(lines)


def text() -> str:
    jobs, evaluations = native.JOB_OPTIONS, native.EVALUATION_OPTIONS
    parts = [
        '"""Types of keywords. Written by tools/python_keywords.py from the tables of src/recipe/options.cpp."""\n\n'
        "from os import PathLike\nfrom typing import Any, Literal, Mapping, TypedDict",
        typed_dict("RecipeOptions", "Keywords of Recipe.", (jobs[key] for key in native.RECIPE_KEYS)),
        typed_dict("RunOptions", "Keywords of quantize and plan.", (jobs[key] for key in native.RUN_KEYS)),
        typed_dict(
            "EvaluationOptions",
            "Keywords of evaluate and compare.",
            (row for key, row in evaluations.items() if key not in ("context", "windows")),
        ),
        typed_dict(
            "GenerationOptions",
            "Keywords of generate.",
            (row for key, row in native.GENERATION_OPTIONS.items() if key != "tokens"),
        ),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(text(), end="")
