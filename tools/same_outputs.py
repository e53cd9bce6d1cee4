#!/usr/bin/env python3
"""Shows that two builds of gptq write the same bytes: runs a list of small jobs and records or compares sha256.

    tools/same_outputs.py record FILE --gptq PROGRAM [--make-checkpoint PROGRAM]
    tools/same_outputs.py compare FILE --gptq PROGRAM [--make-checkpoint PROGRAM]
    tools/same_outputs.py both --gptq PROGRAM --other PROGRAM [--make-checkpoint PROGRAM]

Options: --device cpu|cuda:0|cuda:0,cuda:1, --jobs REGEX (names), --list, --native, --parallel N, --keep FOLDER.
The jobs are in output_jobs.py. compare and both exit with 1 where an output differs. Python's standard library only.

Compared exactly: every file of each output folder, the report's losses and counts, every digit of eval's and compare's
results, the exit codes. Said, but no failure: what a plan decides (batches, where states wait) and peaks of memory; the
host's peak, which holds the program itself, where it changes by more than 2 % and 2 MB. Never compared: times, paths,
messages.
In config.json and quantize_config.json the program's version is replaced by VERSION before hashing.

An output depends on the instruction set, not on the machine: both the program (GPTQ_CPU_ISA) and OpenBLAS
(OPENBLAS_CORETYPE) are held to AVX2, so that recordings may travel between x86-64 machines with one OpenBLAS release.
--native takes the machine's own. On cuda:N outputs depend on the kind of GPU and on the CUDA libraries.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import output_jobs

SOURCE = Path(__file__).resolve().parent.parent
VERSION = re.compile(rb'"gptq\.cpp:[^"]*"')
TIMES = {"seconds", "cpu_seconds", "stage_seconds"}
PATHS = {"model", "output", "text", "folders"}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def without(value, keys):
    """JSON without these keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(inner, keys) for key, inner in value.items() if key not in keys}
    return [without(inner, keys) for inner in value] if isinstance(value, list) else value


def digest(value):
    return sha256(json.dumps(value, sort_keys=True).encode())[:32]


def hashes(folder, model=None):
    """Hashes of all files; "as in the model" where the model has the same file with the same bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data, name = path.read_bytes(), path.relative_to(folder)
            if path.name in ("config.json", "quantize_config.json"):
                data = VERSION.sub(b'"gptq.cpp:VERSION"', data)
            same = model is not None and (model / name).is_file() and (model / name).read_bytes() == data
            found[str(name)] = "as in the model" if same else sha256(data)
    return found


class Runner:
    """Runs jobs with one program in one folder that holds models and texts."""

    def __init__(self, program, work, devices, environment):
        self.program, self.work, self.environment = str(Path(program).resolve()), Path(work), environment
        on_gpu = devices[0] != "cpu"
        self.on_gpu = on_gpu
        self.computed_on = set()  # what reports say of the devices: processor, instruction set, library
        self.names = {"{a}": devices[0] if on_gpu else "sim:0"}
        if not on_gpu:
            self.names["{b}"] = "sim:1"
        elif len(devices) > 1:
            self.names["{b}"] = devices[1]

    def suits(self, job):
        if self.on_gpu and job.only == "cpu":
            return False
        return job.only != "two" or "{b}" in self.names

    @staticmethod
    def placed(job):
        """Its recording holds what the plan decides and expects."""
        return job.name.startswith(("map/", "memory/", "preset/")) or job.name.endswith("-placed")

    def call(self, arguments, program=None):
        return subprocess.run([program or self.program, *arguments], cwd=self.work, env=self.environment,
                              capture_output=True, timeout=900)

    def json_of(self, arguments):
        done = self.call([*arguments, "--json"])
        if done.returncode != 0:
            raise RuntimeError(f"gptq {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
        return json.loads(done.stdout)

    def filled(self, text, folder):
        for name, value in {**self.names, "{recipe}": f"{folder}/recipe.json", "{spill}": f"{folder}/spill"}.items():
            text = text.replace(name, value)
        return text

    def run(self, job):
        folder = Path("jobs") / job.name
        (self.work / folder / "spill").mkdir(parents=True)
        if job.recipe is not None:
            (self.work / folder / "recipe.json").write_text(json.dumps(job.recipe))
        flags = [self.filled(flag, folder) for flag in job.flags]
        if job.calibration:
            flags += ["--calibration", job.calibration]
        placement = [flags[i + 1] for i, flag in enumerate(flags) if flag == "--device-map"]
        if self.on_gpu and not placement and "--max-memory" not in flags:
            placement = [self.names["{a}"]]
            flags += ["--device-map", placement[0]]
        model, out, report = f"models/{job.model}", f"{folder}/out", f"{folder}/report.json"
        result = {"command": " ".join(quoted(part) for part in ["gptq", "quantize", model, "OUT", *flags])}
        if job.limits:
            peaks = plan_figures(self.json_of(["plan", model, *flags]))["peaks"]
            limits = {self.filled(device, folder): less for device, less in job.limits.items()}
            flags += ["--max-memory", json.dumps({device: peaks[device] - less for device, less in limits.items()})]
            result["command"] += " --max-memory " + quoted(
                json.dumps({device: f"its peak without a limit - {less}" for device, less in limits.items()}))
        if job.follow == ("plan",):
            result["command"] = result["command"].replace("quantize", "plan").replace(" OUT", "")
            result["figures"] = plan_figures(self.json_of(["plan", model, *flags]))
            return result
        if job.follow == ("tokenize",):
            done = self.call(["tokenize", model, "--text", "heldout.txt"])
            return {"command": f"gptq tokenize {model} --text heldout.txt", "exit": done.returncode,
                    "stdout": sha256(done.stdout)}

        done = self.call(["quantize", model, out, *flags, "--report", report, "--quiet"])
        result["exit"] = done.returncode
        if done.returncode != job.expected:
            result["unexpected"] = done.stderr.decode(errors="replace").strip()
        if done.returncode != 0:
            result["left"] = sorted(path.name for path in (self.work / folder).iterdir()
                                    if path.name not in ("spill", "recipe.json"))
            return result
        result["files"] = hashes(self.work / out, self.work / model)
        told = json.loads((self.work / report).read_text())
        counts = {key: told[key] for key in ("average_bits", "tokens", "dropped_rows", "output_bytes",
                                             "bits_per_weight")}
        result["report"] = {"loss": sum(linear["loss"] or 0 for linear in told["linears"]),
                            "all": digest([told["linears"], told["bit_choices"], told["experts"], counts])}
        self.computed_on.add(told["device"])
        if self.placed(job):
            result["figures"] = plan_figures(told["plan"])
            peaks = {device["name"]: device["peak_bytes"] for device in told["devices"] if device["name"] != "cpu"}
            result["figures"]["run"] = {"states": told["states"], "visits": len(told["visits"]),
                                        "fallbacks": told["fallbacks"], "peaks": peaks}
        where = ["--device-map", placement[0]] if placement else []
        rest = ["--threads", "1", "--quiet", *where]
        if "--precision" in flags:
            rest += ["--precision", flags[flags.index("--precision") + 1]]
        text = "heldout.txt" if job.model == "demo" else job.calibration or "ids-128.jsonl"
        what = ["--text", text, "--context", "64" if job.model == "demo" else "12", "--windows", "6", *rest]
        for step in job.follow:
            if step == "eval":
                result[step] = without(self.json_of(["eval", out, *what]), TIMES | PATHS)
            elif step == "eval-streamed":
                streamed = what[:what.index("--device-map")] + [
                    "--device-map", json.dumps({"": self.names["{a}"], "model.layers.1": "disk"})]
                result[step] = without(self.json_of(["eval", out, *streamed]), TIMES | PATHS)
            elif step == "compare":
                told = without(self.json_of(["compare", model, out, *what]), TIMES | {"text", "folders"})
                row = told["texts"][0]
                result[step] = {"model": row["model"]["perplexity"], "quantized": row["quantized"]["perplexity"],
                                "mean_kl": row["mean_kl"], "rest": digest(told)}
            elif step == "inspect":
                result[step] = digest(without(self.json_of(["inspect", out]), {"model", "reason"}))
        subprocess.run(["rm", "-rf", str(self.work / folder / "out")], check=True)
        return result


def quoted(text):
    return text if re.fullmatch(r"[\w./:=,+-]+", text) else "'" + text + "'"


def plan_figures(plan):
    """What a plan decides, and the memory that it expects."""
    peaks = {device["name"]: device["peak_bytes"] for device in plan["accelerators"]}
    peaks[plan["host"]["name"]] = plan["host"]["peak_bytes"]
    decided = {key: plan[key] for key in ("states", "keeps_inputs", "read_ahead", "sequences_at_once", "compute_dtype",
                                          "spill_bytes", "output_bytes")}
    return {"decided": decided, "peaks": peaks,
            "units": digest([[u["computes_on"], u["stays"], u["visits"]] for u in plan["units"]]),
            "accepted": digest([[verdict["loader"], verdict["accepts"]] for verdict in plan["loaders"]])}


def run_all(runner, jobs, models, make_checkpoint, parallel):
    """name -> result, in the order of the jobs."""
    output_jobs.write_inputs(runner.work, SOURCE)
    results = {}
    for model in models:
        done = runner.call(output_jobs.make_command(model, "")[1:], program=str(Path(make_checkpoint).resolve()))
        if done.returncode != 0:
            raise SystemExit(f"make_checkpoint: {done.stderr.decode(errors='replace')}")
        results[f"make_checkpoint/{model}"] = {"files": hashes(runner.work / "models" / model)}
    lock, finished = threading.Lock(), 0

    def one(job):
        nonlocal finished
        try:
            result = runner.run(job)
        except (RuntimeError, subprocess.TimeoutExpired, KeyError, ValueError) as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
        with lock:
            finished += 1
            if sys.stderr.isatty():
                print(f"\r{finished}/{len(jobs)} {job.name:<50}", end="", file=sys.stderr)
        return result

    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        for job, result in zip(jobs, pool.map(one, jobs)):
            results[job.name] = result
    if sys.stderr.isatty():
        print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    return results


def differences(one, other):
    """What differs of two results: strict ones, which count, and figures."""
    strict = []
    for key in sorted((set(one) | set(other)) - {"figures", "files", "command", "unexpected", "failed"}):
        if one.get(key) != other.get(key):
            strict.append(f"{key}: {one.get(key)} was {other.get(key)}")
    mine, theirs = one.get("files", {}), other.get("files", {})
    for file in sorted(set(mine) | set(theirs)):
        if mine.get(file) != theirs.get(file):
            strict.append(f"{file}: " + ("differs" if file in mine and file in theirs else
                                         "is new" if file in mine else "is missing"))
    figures = []

    def walk(path, a, b):
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(set(a) | set(b)):
                walk(path + [key], a.get(key), b.get(key))
        elif a != b:
            host_peak = path[-2:] == ["peaks", "cpu"] and a and b
            if not host_peak or abs(a - b) > max(0.02 * b, 2e6):
                figures.append(f"{'.'.join(path)}: {a} was {b}")

    walk([], one.get("figures", {}), other.get("figures", {}))
    return strict, figures


def compare(now, before, whole):
    """Prints what differs; true where nothing of the outputs does."""
    equal, failed, told = 0, 0, []
    for name, result in now.items():
        if name not in before:
            failed += 1
            print(f"{name}: is not in the recording")
            continue
        strict, figures = differences(result, before[name])
        if "failed" in result:
            strict.append(result["failed"])
        told += [f"  {name}: {line}" for line in figures]
        equal += not strict
        failed += bool(strict)
        for line in strict:
            print(f"{name}: {line}")
    for name in before if whole else []:
        if name not in now:
            failed += 1
            print(f"{name}: was recorded and not run")
    if told:
        print("figures that differ (no output does for that):")
        print("\n".join(told))
    print(f"{equal} of {equal + failed} equal")
    return failed == 0


def machine(devices):
    model = platform.machine()
    try:
        model = re.search(r"^(?:model name|CPU part)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M).group(1)
    except (OSError, AttributeError):
        pass
    found = {"processor": model, "system": f"{platform.system()} {platform.machine()}", "device": ",".join(devices)}
    if devices[0] != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        except (OSError, subprocess.CalledProcessError):
            pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "compare", "both"])
    parser.add_argument("file", nargs="?", help="the recording")
    parser.add_argument("--gptq", required=True, help="the program")
    parser.add_argument("--other", help="both: the program that is compared with")
    parser.add_argument("--make-checkpoint", help="leaves out the jobs made/... where absent")
    parser.add_argument("--device", default="cpu", help="cpu, or one or two GPUs: cuda:0,cuda:1")
    parser.add_argument("--jobs", default="", help="a regular expression, searched in the names of jobs")
    parser.add_argument("--list", action="store_true", help="prints the names of jobs and runs none")
    parser.add_argument("--native", action="store_true", help="the machine's own instruction set instead of AVX2")
    parser.add_argument("--parallel", type=int, default=min(2, os.cpu_count()), help="jobs at a time")
    parser.add_argument("--keep", help="works in this new folder and leaves it")
    parser.add_argument("--commit", help="record: the commit of the program, to be noted")
    options = parser.parse_args()
    if (options.file is None) != (options.what == "both") or (options.other is None) != (options.what != "both"):
        parser.error("record and compare take FILE, both takes --other")

    devices = options.device.split(",")
    chosen = {} if options.native else {"GPTQ_CPU_ISA": "avx2", "OPENBLAS_CORETYPE": "HASWELL"}
    if devices[0] == "cpu":
        chosen["CUDA_VISIBLE_DEVICES"] = ""  # else jobs without a map go to a GPU
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("GPTQ_CPU_ISA", "OPENBLAS_CORETYPE", "CUDA_VISIBLE_DEVICES")
                   or (key == "CUDA_VISIBLE_DEVICES" and devices[0] != "cpu")}
    environment.update(chosen)

    wanted = re.compile(options.jobs)
    made = options.make_checkpoint is not None
    probe = Runner(options.gptq, ".", devices, environment)
    jobs = [job for job in output_jobs.all_jobs(SOURCE)
            if wanted.search(job.name) and probe.suits(job) and (made or not job.made)]
    models = [model for model in output_jobs.MADE
              if made and (any(job.model == model for job in jobs) or wanted.search(f"make_checkpoint/{model}"))]
    if options.list:
        print("\n".join(job.name for job in jobs))
        return 0

    def results(program, label):
        with tempfile.TemporaryDirectory(prefix="gptq-outputs-") as folder:
            if options.keep:
                folder = Path(options.keep) / label
                folder.mkdir(parents=True)
            runner = Runner(program, folder, devices, environment)
            return run_all(runner, jobs, models, options.make_checkpoint, options.parallel), runner.computed_on

    now, computed_on = results(options.gptq, "gptq")
    bad = {name: result for name, result in now.items() if "failed" in result or "unexpected" in result}
    for name, result in bad.items():
        print(f"{name}: {result.get('failed') or result['unexpected']}", file=sys.stderr)
    if options.what == "both":
        return 0 if compare(now, results(options.other, "other")[0], True) else 1
    if options.what == "record":
        version = subprocess.run([options.gptq, "--version"], capture_output=True, text=True).stdout.strip()
        recording = {"program": version, "commit": options.commit, "machine": machine(devices),
                     "computed_on": sorted(computed_on), "environment": chosen,
                     "normalised": "the version in config.json and quantize_config.json"}
        with open(options.file, "w") as file:
            head = json.dumps(recording, indent=2)[:-2]
            lines = [f"    {json.dumps(name)}: {json.dumps(result)}" for name, result in now.items()]
            file.write(head + ',\n  "jobs": {\n' + ",\n".join(lines) + "\n  }\n}\n")
        print(f"{len(now)} jobs recorded" + (f", {len(bad)} not as expected" if bad else ""))
        return 1 if bad else 0
    with open(options.file) as file:
        recording = json.load(file)
    if recording["environment"] != chosen:
        print(f"recorded with {recording['environment']}, run with {chosen}: outputs may differ for that")
    if options.native and recording["machine"] != machine(devices):
        print(f"recorded on {recording['machine']}, run on {machine(devices)}: outputs may differ for that")
    if not made and any(name.startswith("make_checkpoint/") for name in recording["jobs"]):
        print("without --make-checkpoint: the jobs made/... are left out")
    whole = not options.jobs and made == any(name.startswith("make_checkpoint/") for name in recording["jobs"])
    return 0 if compare(now, recording["jobs"], whole) else 1


if __name__ == "__main__":
    sys.exit(main())
