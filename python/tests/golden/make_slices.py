#!/usr/bin/env python3
"""Writes slices.json: the calibration sequences that Optimum 2.3.0 takes of its named data sets, on made-up lines and
documents, a token being a character. Needs optimum and gptqmodel.

    python3 make_slices.py > slices.json
"""

from __future__ import annotations

import json

import torch
from optimum.gptq import data

LENGTH = 40
LINES = ["", *[f"line {i} of many" for i in range(1500)]]
# Lengths are odd: of a document of LENGTH tokens, which Optimum takes too, it cannot draw a slice.
DOCUMENTS = [{"text": "x" * (2 * (i % 90)) + chr(65 + i % 26) * 31} for i in range(200)]


class Encoding:
    def __init__(self, text: str) -> None:
        self.input_ids = torch.tensor([[ord(character) for character in text]])


def main() -> None:
    data.load_dataset = lambda name, *_, **__: {"text": LINES} if "wikitext" in name else DOCUMENTS
    found = {}
    for name in ("wikitext2", "c4", "c4-new"):
        rows = data.get_dataset(name, lambda text, return_tensors: Encoding(text), seqlen=LENGTH)
        found[name] = ["".join(map(chr, row["input_ids"][0].tolist())) for row in rows]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
