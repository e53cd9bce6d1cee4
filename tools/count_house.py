#!/usr/bin/env python3
"""Counts how well the source tree is kept: what a change touches, what is too long, what goes in circles.

    tools/count_house.py [ROOT] [--details] [--goals] [--since COMMIT]

Prints a table with the goals; --details lists what was counted, --goals exits with 1 where a goal is missed,
--since adds the subjects of the commits after COMMIT. Python's standard library and git only.

How things are counted (comments never count, strings do):
  op         files that hold the name of an op: of the struct or of the functions that compute it. Ops with a name of
             one word (add, pack) are left out, since the word means other things too. Ops are structs with a `name`
             in src/ops/, or virtual functions of src/backend/ops.h and backend.h.
  option     places that declare, parse, check, write or document an option by hand: lines of include/, apps/ and the
             files of src/ that hold recipes, lines elsewhere in src/ with its name in a string, rows of tables in
             documents. Lines at most six apart are one place. Files that say they are generated do not count.
  backend    files of src/ outside src/backend/cuda, and CMake files outside it, that name CUDA.
  format     files outside a format's own that name it (compressed-tensors).
  class      lines between its braces and of its functions defined elsewhere; kernels (src/backend, src/ops) and tables
             of families left out.
  function   lines from its name to its last brace; "elsewhere" leaves the same folders out.
  loop       outermost loops of src/run and src/plan that hold a loop over blocks (or stops of a walk) and call
             visit() or forward().
  cycles     strongly connected parts of the graph of includes: of folders, and of units (x.h with x.cpp) in a folder.
"""
import argparse
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

CODE = (".h", ".cpp", ".cu", ".cuh")
PRIVATE_WORDS = re.compile(r"first cache|second cache|stretch|slab", re.I)
OPTIONS = ("expert_tokens", "damp_percent", "moe_calibrate_all_experts", "scale_search")


# --- C++ ------------------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'',
    re.S)


def blanked(text):
    return re.sub(r"[^\n]", " ", text)


@lru_cache(None)
def code_of(path):
    """The text without comments."""
    text = path.read_text(errors="replace")
    return TOKEN.sub(lambda m: blanked(m.group()) if m.group().startswith(("//", "/*")) else m.group(), text)


@lru_cache(None)
def bare_code_of(path):
    """The text without comments, contents of strings and preprocessor lines: every brace is a brace of the code."""
    bare = TOKEN.sub(lambda m: blanked(m.group()), path.read_text(errors="replace"))
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: blanked(m.group()), bare, flags=re.M)


def strings_of(path):
    """(line, text) of every string literal."""
    for match in TOKEN.finditer(path.read_text(errors="replace")):
        if match.group().endswith('"'):
            yield path.read_text(errors="replace").count("\n", 0, match.start()) + 1, match.group()


def matching(text, opening):
    """The place after the brace or parenthesis that closes the one at `opening`."""
    pair = {"{": "}", "(": ")"}[text[opening]]
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == text[opening]:
            depth += 1
        elif text[at] == pair:
            depth -= 1
            if depth == 0:
                return at + 1
    return len(text)


NOT_NAMES = {"__launch_bounds__", "alignas", "decltype", "requires", "noexcept", "if", "for", "while", "switch",
             "catch", "return", "sizeof", "__attribute__", "operator"}


def name_of_function(head):
    """(name, place in the head) of the first name before a parenthesis."""
    for match in re.finditer(r"([\w~]+(?:<[^<>]*>)?(?:::[\w~]+)*)\s*\(", head):
        if match.group(1) not in NOT_NAMES:
            return match.group(1), match.start(1)
    operator = re.search(r"((?:\w+::)?operator\S+?)\s*\(", head)
    return (operator.group(1), operator.start(1)) if operator else (None, 0)


@lru_cache(None)
def definitions(path):
    """(kind, name, first line, last line, start, end) of the classes and functions; relies on clang-format's layout."""
    text = bare_code_of(path)
    found, stack, head = [], [], 0  # stack: (kind, name, place of the name, head of what surrounds it)
    for at, character in enumerate(text):
        if character == ";":
            if not stack or stack[-1][0] != "value":
                head = at + 1
        elif character == "{":
            before = text[head:at].strip()
            follows = text[at - 1:at] not in (" ", "\n") or re.search(r"(=|,|\(|\[|\breturn)$", before)
            scope = all(entry[0] in ("namespace", "class") for entry in stack)
            is_class = re.search(r"\b(?:class|struct|union)\s+(?:alignas\([^)]*\)\s*)?([\w:]+)[^()=]*$", before)
            if stack and stack[-1][0] == "value" or follows and before:
                entry = ("value", "", at)
            elif re.search(r"\bnamespace\b[^()]*$", before) or before.startswith("extern"):
                entry = ("namespace", "", at)
            elif is_class and not re.search(r"\benum\b", before):
                entry = ("class", is_class.group(1), head + text[head:at].rindex(is_class.group(1)))
            elif scope and "(" in before:
                name, place = name_of_function(text[head:at])
                entry = ("function", name or "?", head + place)
            else:
                entry = ("block", "", at)
            stack.append((*entry, head))
            if entry[0] != "value":
                head = at + 1
        elif character == "}" and stack:
            kind, name, start, outer = stack.pop()
            if kind in ("class", "function"):
                first, last = text.count("\n", 0, start) + 1, text.count("\n", 0, at) + 1
                found.append((kind, name, first, last, start, at + 1))
            head = outer if kind == "value" else at + 1
    return found


# --- the tree -------------------------------------------------------------------------------------------------------


class Tree:
    def __init__(self, root):
        self.root = Path(root).resolve()

    def files(self, *folders, suffixes=CODE):
        return sorted(path for folder in folders for path in (self.root / folder).rglob("*") if path.suffix in suffixes)

    def name(self, path):
        return str(path.relative_to(self.root))

    def is_kernel_or_table(self, path):
        return bool(re.match(r"src/backend/|src/ops/|src/model/\w*architectures\.cpp|bench/", self.name(path)))

    # Each count returns its value and lines of detail.

    def ops(self):
        """name -> the words that name it"""
        old = self.root / "src" / "backend" / "ops.h"
        if old.exists():
            text = code_of(old) + code_of(old.with_name("backend.h"))
            names = re.findall(r"virtual \w+ (\w+)\((?:Const)?MatrixView [^)]*MatrixView", text)
            return {name: [name] for name in names}
        found = {}
        for path in self.files("src/ops", suffixes=(".h",)):
            for struct, name in re.findall(r"struct (\w+) \{[^{}]*?\bkName = \"(\w+)\"", code_of(path)):
                found[name] = [struct, name]
        return found

    def count_ops(self):
        near = {path: code_of(path) for path in self.files("src/backend", "src/ops")}
        away = {path: code_of(path) for path in self.files("src") if path not in near}
        inside, everywhere, details = {}, {}, []
        for name, words in self.ops().items():
            if "_" not in name:
                continue
            word = re.compile(r"\b(?:" + "|".join(words) + r")\b")
            holds = [path for path, text in near.items() if word.search(text)]
            callers = [path for path, text in away.items() if word.search(text)]
            inside[name], everywhere[name] = len(holds), len(holds) + len(callers)
            details.append(f"{name}: {len(holds)} + {len(callers)} callers: "
                           + ", ".join(self.name(path)[4:] for path in holds))
        return inside, everywhere, details

    def count_flags(self):
        details = []
        for path in self.files("src"):
            for line, text in strings_of(path):
                if re.search(r"(?<![\w-])--[a-z][a-z-]+", text):
                    details.append(f"{self.name(path)}:{line}: {text[:90]}")
        return len({line.split(":")[0] for line in details}), len(details), details

    def is_generated(self, path):
        return "generated" in path.read_text(errors="replace")[:300].lower()

    def count_option(self, option):
        flag = "--" + option.replace("_", "-")
        lines = []
        for path in self.files("include", "apps", "src"):
            keeps_recipes = re.match(r"(include|apps|src/recipe|src/quant/(recipe|rules))", self.name(path))
            if "report" in self.name(path):  # what a run has found has names of its own
                continue
            texts = defaultdict(str)
            for line, text in strings_of(path):
                texts[line] += text
            for number, line in enumerate(code_of(path).split("\n"), 1):
                shown = line if keeps_recipes else texts[number]
                if re.search(rf"\b{option}\b", shown) or re.search(rf"{flag}\b(?!-)", shown):
                    lines.append((self.name(path), number))
        for path in [self.root / "README.md", *sorted((self.root / "docs").glob("*.md"))]:
            if path.exists() and not self.is_generated(path):
                for number, line in enumerate(path.read_text().split("\n"), 1):
                    if re.match(rf"\|[^|]*(`{flag}\b(?!-)|`{option}`)", line):
                        lines.append((self.name(path), number))
        places = []
        for file, number in lines:
            if not places or places[-1][0] != file or number - places[-1][-1] > 6:
                places.append([file, number])
            else:
                places[-1].append(number)
        return len(places), [f"{option}: {place[0]}:{place[1]}" for place in places]

    def count_backend(self, kind="cuda"):
        """Files of src/ and CMake files outside of the backend's folder that name it; Optimum's word does not count."""
        word = re.compile(rf"(?<!use_){kind}", re.I)
        sources, cmake = [], []
        for path in self.files("src"):
            if f"src/backend/{kind}/" not in self.name(path):
                lines = [number for number, line in enumerate(code_of(path).split("\n"), 1) if word.search(line)]
                if lines:
                    sources.append(f"{self.name(path)}: lines {', '.join(map(str, lines))}")
        everything = [self.root / "CMakeLists.txt", *self.files("src", "cmake", suffixes=(".txt", ".cmake", ".in"))]
        for path in everything:
            text = re.sub(r"#[^\n]*", "", path.read_text())
            if f"src/backend/{kind}/" not in self.name(path) and word.search(text):
                cmake.append(self.name(path))
        return len(sources), len(cmake), sources + cmake

    def count_format(self, name="compressed.tensors"):
        word = re.compile(name, re.I)
        found = [self.name(path) for path in self.files("include", "apps", "src")
                 if not word.search(path.name) and word.search(code_of(path))]
        return len(found), found

    def classes(self):
        """(lines with functions defined elsewhere, lines between braces, name, file), longest first"""
        functions, found = defaultdict(int), []
        for path in self.files("src", "apps"):
            for kind, name, first, last, _, _ in definitions(path):
                if kind == "function" and "::" in name:
                    functions[re.sub(r"<.*", "", name).split("::")[-2]] += last - first + 1
        for path in self.files("src", "apps", "include"):
            if not self.is_kernel_or_table(path):
                for kind, name, first, last, _, _ in definitions(path):
                    if kind == "class":
                        found.append((last - first + 1 + functions[name], last - first + 1, name, self.name(path)))
        return sorted(found, reverse=True)

    def functions(self, least):
        found = []
        for path in self.files("src", "apps", "include", "bench", "tools"):
            for kind, name, first, last, _, _ in definitions(path):
                if kind == "function" and last - first + 1 > least:
                    found.append((last - first + 1, name, f"{self.name(path)}:{first}", self.is_kernel_or_table(path)))
        return sorted(found, reverse=True)

    def loops_over_blocks(self):
        details = []
        over = re.compile(r"\bfor \([^{;]*(;[^;]*\bblocks\b[^;]*;|:[^){]*\b(stops|blocks)\b)")
        calls = re.compile(r"\b(visit|forward)\(")
        for path in self.files("src/run", "src/plan"):
            text = bare_code_of(path)
            for kind, name, _, _, start, end in definitions(path):
                if kind != "function":
                    continue
                at = text.index("{", start)
                while (loop := re.compile(r"\b(?:for|while) \(").search(text, at, end)) is not None:
                    body = matching(text, loop.end() - 1)
                    rest = text[body:end].lstrip()
                    if rest.startswith("{"):
                        stop = matching(text, text.index("{", body))
                    else:
                        stop = self.end_of_statement(text, body)
                    whole = text[loop.start():stop]
                    if over.search(whole) and calls.search(whole):
                        line = text.count("\n", 0, loop.start()) + 1
                        details.append(f"{self.name(path)}:{line}: in {name}()")
                    at = stop
        return len(details), details

    @staticmethod
    def end_of_statement(text, at):
        while at < len(text) and text[at] != ";":
            at = matching(text, at) if text[at] in "({" else at + 1
        return at + 1

    def cycles(self):
        folders, units = defaultdict(set), defaultdict(set)
        for path in self.files("src"):
            here = path.relative_to(self.root / "src")
            for included in re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), re.M):
                target = Path(included)
                if not (self.root / "src" / target).exists():
                    target = here.parent / target
                if not (self.root / "src" / target).exists():
                    continue
                if target.parts[0] != here.parts[0]:
                    folders[here.parts[0]].add(target.parts[0])
                elif target.with_suffix("") != here.with_suffix(""):
                    units[str(here.with_suffix(""))].add(str(target.with_suffix("")))
        return ([" <-> ".join(part) for part in connected(folders)], [" <-> ".join(part) for part in connected(units)])

    def private_words(self):
        found = []
        for path in sorted((self.root / "src").rglob("*")):
            if path.is_file():
                for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1):
                    if PRIVATE_WORDS.search(line):
                        found.append(f"{self.name(path)}:{number}: {line.strip()[:90]}")
        return len(found), found

    def subjects(self, since):
        log = subprocess.run(["git", "-C", str(self.root), "log", "--no-merges", "--format=%s", f"{since}..HEAD"],
                             capture_output=True, text=True, check=True).stdout
        return log.splitlines()


def connected(graph):
    """Strongly connected parts of more than one node."""
    reach = {}
    for start in list(graph):
        seen, todo = set(), [start]
        while todo:
            for node in graph.get(todo.pop(), ()):
                if node not in seen:
                    seen.add(node)
                    todo.append(node)
        reach[start] = seen
    parts = {tuple(sorted(node for node in reach[start] if start in reach.get(node, ()))) for start in reach
             if start in reach[start]}
    return sorted(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", default=Path(__file__).resolve().parent.parent, help="of the source tree")
    parser.add_argument("--details", action="store_true", help="what was counted")
    parser.add_argument("--goals", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--since", help="a commit: the subjects after it are measured")
    options = parser.parse_args()
    tree = Tree(options.root)
    rows = []  # what, value, goal, reached, details

    def row(what, value, goal=None, least=None, details=(), shown=None):
        reached = None if goal is None else value <= goal
        rows.append((what, shown or str(value), "" if goal is None else f"<= {goal}", reached, list(details)))

    inside, everywhere, details = tree.count_ops()
    if not inside:
        raise SystemExit(f"{tree.root}: found no ops in src/ops or src/backend/ops.h")

    def worst(counts):
        most = max(counts.values())
        return most, f"{most} ({', '.join(name for name, count in counts.items() if count == most)})"

    row("files of src/ops and src/backend that name an op, median", statistics.median(inside.values()), 4,
        details=details)
    row("  and at most", worst(inside)[0], 6, shown=worst(inside)[1])
    row("files of src that name an op, callers included, median", statistics.median(everywhere.values()))
    row("  and at most", worst(everywhere)[0], shown=worst(everywhere)[1])
    files, lines, details = tree.count_flags()
    row("files of src with --flags in strings", files, 0, details=details)
    row("  and such strings", lines, 0)
    for option in OPTIONS:
        count, details = tree.count_option(option)
        row(f"places of an option by hand: {option}", count, 2, details=details)
    sources, cmake, details = tree.count_backend()
    row("files of src outside a backend's folder that name it (cuda)", sources, 1, details=details)
    row("  and CMake files", cmake, 1)
    count, details = tree.count_format()
    row("files outside a format's own that name it (compressed-tensors)", count, 1, details=details)
    classes = tree.classes()
    row("lines of the longest class outside kernels and tables", classes[0][0], 199,
        details=[f"{whole}, of these {body} between its braces: {name} in {file}"
                 for whole, body, name, file in classes if whole > 150], shown=f"{classes[0][0]} ({classes[0][2]})")
    row("  and such classes of more than 199 lines", sum(whole > 199 for whole, *_ in classes), 0)
    long = tree.functions(80)
    row("functions over 80 lines", len(long), details=[f"{lines}: {name} in {place}" for lines, name, place, _ in long])
    row("  and elsewhere than in kernels, tables and benchmarks", sum(not kernel for _, _, _, kernel in long), 0)
    count, details = tree.loops_over_blocks()
    row("outer loops over a model's blocks", count, 1, details=details)
    folders, units = tree.cycles()
    row("cycles between folders", len(folders), 0, details=folders)
    row("cycles between units of a folder", len(units), 0, details=units)
    count, details = tree.private_words()
    row("lines of src with private words for L1, L2, k-block, chunk", count, 0, details=details)
    row("bytes of README.md", (tree.root / "README.md").stat().st_size, 6143)
    if options.since:
        subjects = tree.subjects(options.since)
        if subjects:
            lengths = [len(subject) for subject in subjects]
            row(f"characters of a commit's subject, median of {len(lengths)}", statistics.median(lengths), 55)
            row("  and at most", max(lengths), 72, details=[s for s in subjects if len(s) > 72])

    width = max(len(what) for what, *_ in rows)
    for what, value, goal, reached, details in rows:
        verdict = "" if reached is None else "yes" if reached else "no"
        print(f"{what:<{width}}  {value:>28}  {goal:>8}  {verdict}".rstrip())
        if options.details:
            for line in details:
                print(f"      {line}")
    missed = sum(reached is False for *_, reached, _ in rows)
    print(f"{missed} of {sum(reached is not None for *_, reached, _ in rows)} goals missed")
    return 1 if options.goals and missed else 0


if __name__ == "__main__":
    sys.exit(main())
