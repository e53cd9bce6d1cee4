#!/usr/bin/env python3
"""Compares the speed of two builds of gptq: runs them in turn on one job and prints medians and their ratio.

    tools/interleaved.py A B --case smollm2 --make-checkpoint PROGRAM --work FOLDER [--runs 7]
    tools/interleaved.py A B --case llama-3-8b --device cuda:0 --make-checkpoint PROGRAM --work FOLDER
    tools/interleaved.py A B --model MODEL --calibration FILE --samples 16 --sequence-length 512 --work FOLDER [FLAGS]

The cases are random weights of SmolLM2-135M's shape with 16 x 512 tokens and of Llama-3-8B's with 128 x 2048; the
checkpoint is written into the work folder once (0.3 and 16 GB) and kept. Flags that the script does not know go to
both programs. Pairs are run as AB, BA, AB, ..., after one run of each that does not count, so that drift of the machine
cancels. On a machine that others use, the processor's seconds say more than those on the wall. The ratio is B over A:
the median of the pairs' ratios, with the least and the largest. The outputs must be the same bytes unless --any-output.
Exit code 1: the outputs differ, or with --limit PERCENT B is slower than A by more. Python's standard library only.
"""
import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "smollm2": {"shape": "smollm2-135m", "samples": 16, "sequence_length": 512, "flags": ["--group-size", "64"]},
    "llama-3-8b": {"shape": "llama-3-8b", "samples": 128, "sequence_length": 2048, "flags": ["--group-size", "128"]},
}


def make_model(options, case):
    layers = [] if options.layers is None else ["--layers", str(options.layers)]
    name = case["shape"] + (f"-{options.layers}" if layers else "")
    model = options.work / name
    ids = options.work / f"{name}-{options.samples}-{options.sequence_length}.jsonl"
    if not (model / "config.json").exists() or not ids.exists():
        if options.make_checkpoint is None:
            raise SystemExit(f"{model} is not there: give --make-checkpoint")
        subprocess.run([options.make_checkpoint, str(model), "--shape", case["shape"], *layers, "--overwrite", "--ids",
                        str(ids), "--sequences", str(options.samples), "--length", str(options.sequence_length)],
                       check=True)
    return model, ids


def run(program, options, flags, label):
    """One run: its seconds and a hash of what it wrote."""
    out, report = options.work / f"out-{label}", options.work / f"report-{label}.json"
    shutil.rmtree(out, ignore_errors=True)
    command = [program, "quantize", str(options.model), str(out), "--calibration", str(options.calibration),
               "--samples", str(options.samples), "--sequence-length", str(options.sequence_length),
               "--report", str(report), "--quiet", *flags]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.monotonic() - start
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    told = json.loads(report.read_text())
    found = {"wall": wall, "run": told["seconds"], "processor": told["cpu_seconds"],
             "MB at peak": told["peak_memory_bytes"] / 1e6}
    found.update({f"  {stage}": seconds for stage, seconds in told["stage_seconds"].items()})
    content = hashlib.sha256()
    for path in sorted(out.glob("*.safetensors")):
        content.update(path.name.encode())
        with open(path, "rb") as file:
            while piece := file.read(1 << 24):
                content.update(piece)
    shutil.rmtree(out)
    report.unlink()
    return found, content.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="a program gptq")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--work", type=Path, required=True, help="a folder for models and outputs")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--make-checkpoint", help="the program, where the case's checkpoint is not there")
    parser.add_argument("--layers", type=int, help="fewer blocks than the case has")
    parser.add_argument("--model", type=Path, help="instead of a case")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--sequence-length", type=int)
    parser.add_argument("--device", help="given to both as --device-map")
    parser.add_argument("--runs", type=int, default=7, help="of each program")
    parser.add_argument("--limit", type=float, help="per cent that B may be slower")
    parser.add_argument("--on", choices=["wall", "run", "processor"], default="wall", help="what --limit looks at")
    parser.add_argument("--any-output", action="store_true", help="do not compare what both write")
    options, flags = parser.parse_known_args()
    if (options.case is None) == (options.model is None):
        parser.error("give either --case or --model with --calibration, --samples and --sequence-length")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.case:
        case = CASES[options.case]
        options.samples = options.samples or case["samples"]
        options.sequence_length = options.sequence_length or case["sequence_length"]
        options.model, options.calibration = make_model(options, case)
        flags = [*(case["flags"] if "--group-size" not in flags else []), *flags]
    elif None in (options.calibration, options.samples, options.sequence_length):
        parser.error("--model needs --calibration, --samples and --sequence-length")
    if options.device:
        flags += ["--device-map", options.device]

    programs = {"A": options.a, "B": options.b}
    written = {label: {run(programs[label], options, flags, label)[1]} for label in programs}
    found = {label: [] for label in programs}
    for pair in range(options.runs):
        for label in ("AB", "BA")[pair % 2]:
            seconds, content = run(programs[label], options, flags, label)
            found[label].append(seconds)
            written[label].add(content)
        print(f"pair {pair + 1} of {options.runs}: wall {found['A'][-1]['wall']:.2f} and "
              f"{found['B'][-1]['wall']:.2f} s", file=sys.stderr)

    print(f"{'median':<24}{'A':>10}{'B':>10}  B/A (least, largest)")
    ratios = {}
    for key in found["A"][0]:
        a, b = ([one.get(key, 0) for one in found[label]] for label in "AB")
        quotients = [second / first for first, second in zip(a, b) if first > 0]
        if not quotients:
            continue
        ratios[key] = statistics.median(quotients)
        print(f"{key:<24}{statistics.median(a):>10.3f}{statistics.median(b):>10.3f}  {ratios[key]:.4f} "
              f"({min(quotients):.3f}, {max(quotients):.3f})")
    failed = False
    if not options.any_output:
        same = len(written["A"] | written["B"]) == 1
        failed = not same
        print(f"safetensors of all {2 * options.runs + 2} runs: {'the same bytes' if same else 'DIFFERENT'}")
    if options.limit is not None and ratios[options.on] > 1 + options.limit / 100:
        print(f"B is slower by more than {options.limit} %")
        failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
