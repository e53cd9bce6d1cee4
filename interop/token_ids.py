#!/usr/bin/env python3
"""Are gptq's token ids those of transformers, and how fast does each make them?

  python token_ids.py --gptq build/release/gptq --text FILE [--text FILE ...] TOKENIZER_FOLDER ...

Each text is one string. Prints a line for each folder and text: equal or where the first difference is, the number of
ids, and megabytes a second of gptq (its start and the reading of the tokenizer taken off) and of the library, both on one
core where the command is run under `taskset -c 0`. Exits with 1 where ids differ.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

# This file has the library's name: it must not find itself.
sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() != pathlib.Path(__file__).resolve().parent]

from transformers import AutoTokenizer, PreTrainedTokenizerFast


def library(folder):
    file = folder / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file)) if file.exists() else AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()
    return lambda text: tokenizer.backend_tokenizer.encode(text).ids


def gptq_ids(gptq, folder, file):
    start = time.perf_counter()
    done = subprocess.run([gptq, "tokenize", folder, "--text", file], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    ids = json.loads(done.stdout.splitlines()[0])
    return (ids["input_ids"] if isinstance(ids, dict) else ids), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--text", action="append", required=True, type=pathlib.Path)
    parser.add_argument("--gptq", required=True)
    options = parser.parse_args()
    differs = False
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as short:
        short.write("a")
        short.flush()
        for folder in options.folders:
            encode = library(folder)
            for file in options.text:
                text = file.read_text(encoding="utf-8")
                size = len(text.encode()) / 1e6
                start = time.perf_counter()
                want = encode(text)
                rate = size / (time.perf_counter() - start)
                runs = []
                for _ in range(3):
                    found, seconds = gptq_ids(options.gptq, folder, file)
                    runs.append(seconds - gptq_ids(options.gptq, folder, short.name)[1])
                place = next((i for i, (a, b) in enumerate(zip(found, want)) if a != b), min(len(found), len(want)))
                verdict = "equal" if found == want else f"differs at {place}"
                differs = differs or found != want
                print(f"{folder.name:24} {file.name:22} {verdict}, {len(want)} ids, {size / max(min(runs), 1e-6):.1f} MB/s "
                      f"(library {rate:.1f})", flush=True)
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
