#!/usr/bin/env python3
"""Kills runs with SIGKILL at random instants, continues each with --resume until it is done, and compares the bytes.

    tools/kill_runs.py --gptq build/release/gptq --kills 200
    tools/kill_runs.py ... --device cuda:0 --kills 20

Kinds: the demo model, an MoE of a golden family, `best`, --average-bits 3.5, saved states, and spilled states. Prints a
row for each: kills, runs, seconds of an undisturbed run, and the time that a kill costs (all runs together less the
undisturbed one, divided by the kills; and the median over the jobs). Exits with 1 if any byte differs.
"""

import argparse
import hashlib
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"


def digest(folder):
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def jobs(work):
    ids = work / "ids.jsonl"
    rng = random.Random(5)
    ids.write_text("".join(
        '{"input_ids": %s}\n' % [rng.randrange(66) for _ in range(16)] for _ in range(24)))
    demo = [str(DEMO / "model"), "--calibration", str(DEMO / "calibration.txt"), "--samples", "24",
            "--sequence-length", "128"]
    mixture = [str(ROOT / "tests/golden/families/mixtral"), "--calibration", str(ids), "--samples", "24",
               "--sequence-length", "16", "--group-size", "-1"]
    return {
        "default": demo,
        "best": demo + ["--preset", "best"],
        "average bits 3.5": demo + ["--average-bits", "3.5"],
        "saved states": demo + ["--preset", "best", "--checkpoint-states"],
        "spilled states": demo + ["--spill-dir", str(work)],
        "experts": mixture,
    }


def quantize(gptq, job, output, more, kill_after=None):
    """Returns (exit code, seconds); the code is None where the run was killed."""
    command = [gptq, "quantize", job[0], str(output), *job[1:], "--quiet", *more]
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, time.monotonic() - began
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}: {errors}")
    return 0, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gptq", required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="instead of these kinds: a model folder ...")
    parser.add_argument("--options", default="", help="... and its options")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    different = 0
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        kinds = {"model": [options.model, *options.options.split()]} if options.model else jobs(work)
        more = ["--device-map", options.device] if options.device else []
        print(f"{'kind':18} {'kills':>5} {'runs':>5} {'undisturbed s':>13} {'lost per kill s':>15}  bytes")
        for kind, job in kinds.items():
            output = work / "out"
            _, undisturbed = quantize(options.gptq, job, output, more)
            expected = digest(output)
            shutil.rmtree(output)
            kills = runs = 0
            lost = 0.0
            same = True
            while kills < options.kills // len(kinds):
                spent, killed = 0.0, 0
                while True:
                    instant = rng.uniform(0.05, 1.1) * undisturbed
                    # A job that dies again and again ends some day.
                    code, seconds = quantize(options.gptq, job, output, more + ["--resume"],
                                             instant if killed < 8 else None)
                    spent += seconds
                    runs += 1
                    if code == 0:
                        break
                    killed += 1
                    if output.exists():
                        break  # killed after the output was in place
                if digest(output) != expected:
                    same = False
                    different += 1
                leftover = pathlib.Path(str(output) + ".partial")
                if leftover.exists():  # killed while it cleared up: the next run does
                    subprocess.run([options.gptq, "quantize", job[0], str(output), *job[1:], "--quiet", *more],
                                   capture_output=True, check=False)
                    if leftover.exists():
                        sys.exit(f"{leftover} stays")
                shutil.rmtree(output)
                kills += killed
                lost += spent - undisturbed
                costs.extend([(spent - undisturbed) / killed] * killed if killed else [])
            print(f"{kind:18} {kills:5} {runs:5} {undisturbed:13.2f} {lost / max(kills, 1):15.2f}  "
                  f"{'equal' if same else 'DIFFERENT'}", flush=True)
    if costs:
        print(f"median time lost per kill: {statistics.median(costs):.2f} s")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
