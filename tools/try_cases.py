#!/usr/bin/env python3
"""Runs the commands that the READMEs of a folder of cases name, and prints a table of what came of each.

    tools/try_cases.py CASES PROGRAM [--limit SECONDS]

A case is a folder in CASES; its commands stand in backquotes and begin with `gptq`. They run in a copy of CASES, OUT is
a fresh folder. A case without such a command is inspected, or tokenized where it has a tokenizer and t.txt.
"""
import argparse
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def commands_of(case):
    """The commands of a case, as lists of words relative to it or to the folder of cases."""
    readme = case / "README"
    found = re.findall(r"`(gptq [^`]*)`", readme.read_text()) if readme.exists() else []
    commands = [shlex.split(command)[1:] for command in found if "FILE" not in command and "DEMO" not in command]
    if commands:
        return commands
    if (case / "c.jsonl").exists():
        return [["tokenize", case.name, "--text", f"{case.name}/c.jsonl"]]
    if (case / "t.txt").exists() and not (case / "README").exists():
        return [["tokenize", case.name, "--text", f"{case.name}/t.txt"]]
    return [["inspect", case.name]] if (case / "config.json").exists() else []


def run(program, words, case, folder, limit):
    """Exit code, seconds, peak memory in MB, and the last line or the loss."""
    words = [str(folder / "OUT") if word == "OUT" else word.replace(".../", case + "/") for word in words]
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen([program, *words], cwd=folder, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)))
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        out.seek(0), err.seek(0)
        text, message = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    loss = re.search(r'"mean_nll": *([0-9.]+)', text)
    lines = [line for line in (message if code or not text.strip() else text).splitlines() if line.strip()]
    said = f"mean_nll {loss.group(1)}" if loss and code == 0 else lines[-1] if lines else ""
    return code, seconds, usage.ru_maxrss / 1024, said.replace(str(folder) + "/", "").replace("|", "\\|")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="seconds of CPU time a command may take")
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    print("| case | command | exit | seconds | MB | message |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "cases"
        shutil.copytree(arguments.cases, folder)
        for case in sorted(path for path in folder.iterdir() if path.is_dir()):
            shutil.rmtree(folder / "OUT", ignore_errors=True)
            for words in commands_of(case):
                inside = any((case / word.split("/")[0]).exists() for word in words[1:]) and not any(
                    word.split("/")[0] == case.name for word in words[1:])
                code, seconds, memory, said = run(program, words, case.name, case if inside else folder, arguments.limit)
                print(f"| {case.name} | {words[0]} {words[1] if len(words) > 1 and inside else ''} | {code} "
                      f"| {seconds:.2f} | {memory:.0f} | {said[:160]} |")
                sys.stdout.flush()


main()
