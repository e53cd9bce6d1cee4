#!/usr/bin/env python3
"""Where a job's time went on a GPU, beside the floor of each stage: a Markdown table from the report of a quantize run.

    gptq quantize MODEL OUT ... --report report.json
    tools/stage_table.py report.json [--tflops 760] [--gbytes 3059]

Floors are the operations of Llama-like blocks over the measured product rate (bench_accelerator prints both ceilings), or the
bytes that must move over the measured copy rate, whichever is longer; factorizations at the rate of plain f32 (50 TFLOP/s
measured as `linear f32`), copies to the device at 55 GB/s.
"""
import argparse
import json

parser = argparse.ArgumentParser()
parser.add_argument("report")
parser.add_argument("--tflops", type=float, default=760)
parser.add_argument("--gbytes", type=float, default=3059)
parser.add_argument("--wall", type=float, help="seconds of the whole process, where measured outside")
arguments = parser.parse_args()
report = json.load(open(arguments.report))
tokens, linears = report["tokens"], report["linears"]
length = tokens / report["sequences"]
steps = {}  # (block, inputs) -> the linears' outputs; a step is known by its first linear
forward = gram = factor = columns = weights = 0.0
seen = set()
for linear in linears:
    n, rows = linear["in_features"], linear["out_features"]
    forward += 2 * tokens * n * rows
    columns += rows * n * n  # feedback of each column to all later ones
    weights += n * rows
    block = linear["name"].rsplit(".", 2)[0]
    step = (block, "qkv" if linear["name"].endswith(("q_proj", "k_proj", "v_proj")) else
            "gate_up" if linear["name"].endswith(("gate_proj", "up_proj")) else linear["name"])
    if step not in seen:
        seen.add(step)
        gram += tokens * n * n
        factor += n**3 / 3
blocks = len({linear["name"].rsplit(".", 2)[0] for linear in linears})
q = next(linear for linear in linears if linear["name"].endswith("q_proj"))
last = linears[-1]
forward -= 2 * tokens * last["in_features"] * last["out_features"]  # nobody reads what is behind the last block
peak, copy = arguments.tflops * 1e12, arguments.gbytes * 1e9
floors = {
    "forward": forward / peak,
    "attention": 2 * tokens * length * q["out_features"] * blocks / peak,
    "Hessian": gram / peak,
    "factorization": factor / 50e12,
    "feedback": columns / 50e12,
    "columns": weights * 4 * 8 / copy,
    "pack and write": weights * 1.5 / copy,
    "load": weights * 2 / 55e9,
}
total = 0.0
print("| stage | seconds | floor |\n|---|---|---|")
for stage, seconds in sorted(report["stage_seconds"].items(), key=lambda item: -item[1]):
    total += seconds
    floor = floors.get(stage)
    print(f"| {stage or 'between stages'} | {seconds:.2f} | {'' if floor is None else f'{floor:.2f}'} |")
print(f"| **sum** | **{total:.2f}** | **{sum(floors.values()):.2f}** |")
print(f"\nthe run: {report['seconds']:.2f} s" + (f", the process {arguments.wall:.2f} s" if arguments.wall else ""))
