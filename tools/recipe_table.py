#!/usr/bin/env python3
"""Quantizes one model with many recipes and evaluates each on several texts: the tables of docs/benchmarks.md.

    tools/recipe_table.py GPTQ MODEL WORKDIR --calibration ids.jsonl --texts wikitext2-test.jsonl tinystories.jsonl \
        --rows 'default' 'best' 'best|--bits|3' > table.jsonl

A row is a preset and further options of `gptq quantize`, with | between words. Standard output gets one JSON object a
row, standard error one line a row."""

import argparse
import json
import pathlib
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("gptq")
parser.add_argument("model")
parser.add_argument("workdir", type=pathlib.Path)
parser.add_argument("--calibration", required=True)
parser.add_argument("--texts", nargs="+", required=True)
parser.add_argument("--rows", nargs="+", required=True)
parser.add_argument("--group-size", default="64")
parser.add_argument("--samples", default="64")
parser.add_argument("--sequence-length", default="1024")
parser.add_argument("--context", default="1024")
parser.add_argument("--windows", default="32")
arguments = parser.parse_args()

arguments.workdir.mkdir(parents=True, exist_ok=True)
out, report_file = str(arguments.workdir / "quantized"), arguments.workdir / "report.json"
for row in arguments.rows:
    preset, *options = row.split("|")
    common = ["--group-size", arguments.group_size, "--samples", arguments.samples]
    common += ["--sequence-length", arguments.sequence_length, "--calibration", arguments.calibration]
    quantize = [arguments.gptq, "quantize", arguments.model, out, "--overwrite", "--quiet", "--preset", preset]
    subprocess.run([*quantize, "--report", str(report_file), *common, *options], check=True)
    report = json.loads(report_file.read_text())
    linears, device = report["linears"], report["devices"][0]
    planned = (report["plan"]["accelerators"] or [report["plan"]["host"]])[0]["peak_bytes"]
    result = {
        "recipe": row,
        "seconds": report["seconds"],
        "planned_seconds": report["plan"]["seconds"],
        "device_bytes": device["peak_bytes"],
        "planned_bytes": planned,
        "error": sum(linear["error"] for linear in linears) / len(linears),
        "stage_seconds": report["stage_seconds"],
        "perplexity": {},
    }
    for text in arguments.texts:
        evaluate = [arguments.gptq, "eval", out, "--text", text, "--context", arguments.context]
        evaluate += ["--windows", arguments.windows, "--quiet", "--json"]
        answer = subprocess.run(evaluate, check=True, capture_output=True, text=True).stdout
        result["perplexity"][pathlib.Path(text).name] = json.loads(answer)["perplexity"]
    print(json.dumps(result), flush=True)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result["perplexity"].items())
    print(f"{row}: {figures}; {result['seconds']:.2f} s", file=sys.stderr)
