#!/usr/bin/env python3
"""Measures what any machine can measure and writes it into the generated sections of docs/benchmarks.md and README.md.

    tools/benchmarks.py build/release/gptq [SECTION ...]

A section lies between the lines <!-- generated: NAME --> and <!-- end -->; without a name all are written again. Each
says the machine and the day. Figures of quality only: times need an idle machine and stay with their commands."""

import argparse
import datetime
import json
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "docs/benchmarks.md", ROOT / "README.md"]
CALIBRATION = ["--calibration", "demo/calibration.txt", "--samples", "128", "--sequence-length", "256"]


class Machine:
    """Runs the program in the root of the repository and remembers the device that its reports name."""

    def __init__(self, gptq):
        self.gptq = str(pathlib.Path(gptq).resolve())
        self.device = ""
        self.dtype = ""

    def run(self, *words):
        done = subprocess.run([self.gptq, *words], cwd=ROOT, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def quantize(self, folder, *options):
        report = self.run("quantize", "demo/model", folder, *CALIBRATION, *options, "--overwrite", "--json", "--quiet")
        if not self.device:
            self.device, self.dtype = report["device"], report["compute_dtype"]
        return report

    def perplexity(self, folder):
        return self.run("eval", folder, "--text", "demo/heldout.txt", "--context", "256", "--json", "--quiet")["perplexity"]

    def quantized_perplexity(self, *options):
        with tempfile.TemporaryDirectory() as work:
            self.quantize(work + "/out", *options)
            return self.perplexity(work + "/out")

    def line(self):
        if not self.device:
            with tempfile.TemporaryDirectory() as work:
                self.quantize(work + "/out", "--method", "rtn")
        return f"{self.device}, {self.dtype}; {datetime.date.today()}."


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def demo(machine):
    rows = machine.run("demo", "--json", "--quiet")["rows"]
    plain = rows[0]["perplexity"]

    def name(row):
        method = {"fp": "unquantized (bf16)", "rtn": "round to nearest", "gptq": "GPTQ"}[row["method"]]
        return method if row["method"] == "fp" else f"{method}, {row['bits']} bits"

    return table(["", "perplexity", "over unquantized"],
                 [[name(row), f"{row['perplexity']:.3f}",
                   "" if row is rows[0] else f"{100 * (row['perplexity'] / plain - 1):+.1f} %"] for row in rows])


def recipes(machine):
    return table(["`P`", "`B` = 4", "`B` = 3", "`B` = 2"],
                 [[f"`{preset}`"] + [f"{machine.quantized_perplexity('--preset', preset, '--bits', bits):.3f}"
                                     for bits in ("4", "3", "2")] for preset in ("paper", "default", "best")])


def bits(machine):
    uniform = {bits: machine.quantized_perplexity("--bits", str(bits)) for bits in (3, 4)}
    rows = [["3 (uniform)", f"{uniform[3]:.3f}", ""]]
    for average in (3.25, 3.5, 3.75):
        chosen = machine.quantized_perplexity("--average-bits", str(average))
        between = uniform[3] + (average - 3) * (uniform[4] - uniform[3])
        rows.append([average, f"{chosen:.3f}", f"{between:.3f}"])
    rows.append(["4 (uniform)", f"{uniform[4]:.3f}", ""])
    return table(["average bits", "perplexity", "interpolated between uniform widths"], rows)


def plan(machine):
    def row(name, *options):
        with tempfile.TemporaryDirectory() as work:
            report = machine.quantize(work + "/out", *options)
        said, taken = report["plan"]["host"]["peak_bytes"], report["peak_memory_bytes"]
        return [name, f"{said / 1e6:.0f} MB", f"{taken / 1e6:.0f} MB", f"{100 * (said / taken - 1):+.1f} %",
                f"{report['plan']['output_bytes'] / 1e6:.2f} MB", f"{report['output_bytes'] / 1e6:.2f} MB"]

    return table(["the demo", "memory planned", "taken", "", "output planned", "written"],
                 [row("`--bits 4`", "--bits", "4"), row("`--bits 4 --preset best`", "--bits", "4", "--preset", "best"),
                  row("`--bits 4 --precision fp32`", "--bits", "4", "--precision", "fp32")])


SECTIONS = {"demo": demo, "demo-recipes": recipes, "demo-bits": bits, "demo-plan": plan}


def write_section(name, written):
    total = 0
    for document in DOCUMENTS:
        text, count = re.subn(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->\n)",
                              lambda found: found[1] + written + found[2], document.read_text(), flags=re.S)
        if count:
            document.write_text(text)
        total += count
    if total == 0:
        raise SystemExit(f"no document has a section named {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gptq")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    machine = Machine(arguments.gptq)
    for name in arguments.sections or SECTIONS:
        written = f"{SECTIONS[name](machine)}\n\n{machine.line()}\n"
        write_section(name, written)
        print(f"== {name}\n{written}")


main()
