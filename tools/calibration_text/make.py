#!/usr/bin/env python3
"""Makes src/data/built_in_text.jsonl.gz, the calibration text that is used where none is given.

  tools/calibration_text/make.py TINYSHAKESPEARE.txt

Sources and licences are in README.md beside it. Each source is cut into documents of about 1,500 characters at ends of
paragraphs; a fixed shuffle mixes them, so that every sequence has prose, code and several languages. The same sources
give the same bytes.
"""
import gzip
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
LENGTH = 1500
PLAYS = 150_000  # characters
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/command_line.md", "docs/cuda.md", "docs/design.md",
             "docs/evaluation.md", "docs/offload.md", "docs/reliability.md"]
CODE = ["src/quant/*.cpp", "src/ops/norms.cpp", "src/ops/attention.cpp", "src/data/calibration.cpp",
        "src/data/tokenizer/bpe.cpp", "src/backend/cuda/norms.cu", "tools/*.py", "scripts/setup", "scripts/test",
        "CMakeLists.txt", "src/data/CMakeLists.txt"]


def pieces(text):
    """Parts of about LENGTH characters that end where a paragraph ends."""
    part = ""
    for paragraph in text.split("\n\n"):
        part += ("\n\n" if part else "") + paragraph
        if len(part) >= LENGTH:
            yield part.strip("\n")
            part = ""
    if len(part) > LENGTH / 4:
        yield part.strip("\n")


def sources(plays):
    for file in sorted((HERE / "prose").glob("*.txt")):
        yield file.read_text()
    for name in DOCUMENTS:
        yield (ROOT / name).read_text()
    for pattern in CODE:
        for file in sorted(ROOT.glob(pattern)):
            yield file.read_text()
    # Scenes from all of the collection.
    text = pathlib.Path(plays).read_text()
    parts = list(pieces(text))
    step = len(text) / PLAYS
    yield from (parts[int(i * step)] for i in range(int(len(parts) / step)))


documents = [piece for text in sources(sys.argv[1]) for piece in pieces(text)]
random.Random(2026).shuffle(documents)
lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
packed = gzip.compress(lines.encode(), 9, mtime=0)
(ROOT / "src/data/built_in_text.jsonl.gz").write_bytes(packed)
print(f"{len(documents)} documents, {len(lines.encode())} bytes, {len(packed)} compressed")
