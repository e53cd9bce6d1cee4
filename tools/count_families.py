#!/usr/bin/env python3
"""Counts the causal language models of transformers that the table of architectures covers.

    tools/count_families.py [--transformers FOLDER] [--names] [--write]

Reads MODEL_FOR_CAUSAL_LM_MAPPING_NAMES from transformers (the installed one, or a folder with its sources; nothing is
imported) and compares it with what is here. A name is covered if a row of src/model/*architectures.cpp has it, which a
test proves with a golden checkpoint; or if a golden checkpoint of a model with several parts has it. It is refused if
src/model/refused_families.cpp says why. --names prints a line for each name, --write writes the names to
tests/golden/transformers_names.txt, from which tools/family_table counts too.
"""
import argparse
import ast
import importlib.util
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def mapping_names(transformers):
    """The keys of MODEL_FOR_CAUSAL_LM_MAPPING_NAMES."""
    tree = ast.parse((transformers / "models/auto/modeling_auto.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES":
            return [pair.elts[0].value for pair in node.value.args[0].elts]
    sys.exit(f"{transformers}: no MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


def quoted(text):
    return set(re.findall(r'"([^"]+)"', text))


def covered_names():
    names = set()
    for source in sorted((ROOT / "src/model").glob("*architectures.cpp")):
        for found in re.findall(r"model_types\s*=\s*\{([^}]*)\}", source.read_text()):
            names |= quoted(found)
    for config in sorted((ROOT / "tests/golden/families").glob("*/config.json")):
        names.add(json.loads(config.read_text())["model_type"])
    return names


def refused_names():
    text = (ROOT / "src/model/refused_families.cpp").read_text()
    return {name for found in re.findall(r"\{\{([^}]*)\}", text) for name in quoted(found)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transformers", type=Path, help="folder with the sources of transformers")
    parser.add_argument("--names", action="store_true", help="a line for each name")
    parser.add_argument("--write", action="store_true", help="write the names for tools/family_table")
    options = parser.parse_args()
    transformers = options.transformers
    if transformers is None:
        found = importlib.util.find_spec("transformers")
        if found is None:
            sys.exit("transformers is not installed: pass --transformers FOLDER")
        transformers = Path(found.submodule_search_locations[0])
    names, covered, refused = mapping_names(transformers), covered_names(), refused_names()
    states = {name: "covered" if name in covered else "refused" if name in refused else "not covered" for name in names}
    if options.names:
        for name, state in sorted(states.items()):
            print(f"{name:28} {state}")
    if options.write:
        (ROOT / "tests/golden/transformers_names.txt").write_text("\n".join(sorted(names)) + "\n")
    counts = [sum(state == wanted for state in states.values()) for wanted in ("covered", "refused", "not covered")]
    print(f"{counts[0]} of the {len(names)} names are covered, {counts[1]} are refused with a reason, "
          f"{counts[2]} are neither.")


main()
