"""Calibration data by the names that Optimum knows, through the `datasets` package: the same slices of tokens as
Optimum 2.3 takes (optimum.gptq.data), with its seed."""

from __future__ import annotations

import random
from typing import Any, Callable

from .errors import InputError

NAMES = ("wikitext2", "c4", "c4-new")
_RETIRED = ("ptb", "ptb-new")
_SAMPLES, _SEED = 128, 0
_WIKITEXT_LINES = 1000

Encode = Callable[[str], "list[int]"]


def named_sequences(name: str, encode: Encode, length: int) -> list[list[int]]:
    """128 sequences of `length` tokens of the training split. Raises InputError for a name that is not known, or text
    that is too short; ImportError without `datasets`."""
    if name in _RETIRED:
        raise InputError(f"dataset: {name} was retired by Optimum; there are {', '.join(NAMES)}", option="dataset")
    if name not in NAMES:
        raise InputError(
            f"dataset: {name} is neither a file nor one of {', '.join(NAMES)}; texts and token ids go in a list",
            option="dataset",
        )
    draw = random.Random(_SEED)
    return _wikitext2(encode, length, draw) if name == "wikitext2" else _c4(name, encode, length, draw)


def _load(name: str, *arguments: Any, **options: Any) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"the data set {name} is loaded by the datasets package: pip install datasets") from error
    return load_dataset(*arguments, **options)


def _slice(ids: list[int], length: int, draw: random.Random) -> list[int]:
    start = draw.randint(0, len(ids) - length - 1)
    return ids[start : start + length]


def _wikitext2(encode: Encode, length: int, draw: random.Random) -> list[list[int]]:
    data = _load("wikitext2", "Salesforce/wikitext", "wikitext-2-raw-v1", split="train")
    ids = encode("".join(line if line != "" else " \n" for line in data["text"][:_WIKITEXT_LINES]))
    if len(ids) <= length:
        raise InputError(
            f"dataset: wikitext2 has {len(ids)} tokens where more than {length} are needed", option="dataset"
        )
    return [_slice(ids, length, draw) for _ in range(_SAMPLES)]


def _c4(name: str, encode: Encode, length: int, draw: random.Random) -> list[list[int]]:
    files = {"train": "en/c4-train.00000-of-01024.json.gz"}
    data = _load(name, "allenai/c4", split="train", data_files=files)
    tries = 100 * max(len(data), _SAMPLES)  # documents of that length may be rare, but not that rare
    sequences: list[list[int]] = []
    while len(sequences) < _SAMPLES:
        ids = encode(data[draw.randint(0, len(data) - 1)]["text"])
        if len(ids) > length:
            sequences.append(_slice(ids, length, draw))
        tries -= 1
        if tries == 0:
            raise InputError(f"dataset: {name} has too few documents of more than {length} tokens", option="dataset")
    return sequences
