#!/usr/bin/env python3
"""Compares chat templates rendered by render_chats with what transformers makes of them.

    tools/compare_chat_templates.py RENDER_CHATS FOLDER [FOLDER ...] [--verbose]

FOLDER has *.jinja files, or model folders with a chat template. Each template is given the chats below; a cell says
how both answers compare: "equal", "both refuse" (transformers raises an error), "we refuse", "they refuse",
"different". Exits with 1 unless all are equal or refused by both. Needs the Python packages transformers and jinja2.
"""
import argparse
import collections
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tokenizers
import transformers
from transformers.utils import chat_template_utils

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Tells the weather of a place, in °C.",
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "City & country"},
            "days": {"type": "integer", "description": "How many days", "default": 1, "minimum": 0},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "parts": {"type": "array", "items": {"type": "string"}, "nullable": True},
            "where": {"type": "object", "properties": {"latitude": {"type": "number"}}, "required": ["latitude"]}}},
        "return": {"type": "string", "description": "A sentence"}}},
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}},
]


def call(name, arguments, number="call_1_ab"):
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


PLAIN = [{"role": "user", "content": " Hi, what's 2 + 2? <b>\n"}, {"role": "assistant", "content": "It's 4.\n"}]
CALLS = [
    {"role": "system", "content": "Use the tools."},
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"place": "Zürich", "days": 2, "deep": {"a": [1, 2.5, None, True]}}, "abcdefghi")]},
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "{\"sky\": \"blue\", \"°C\": 21.0}"},
    {"role": "assistant", "content": "Blue, 21 °C."},
    {"role": "user", "content": "And now?"},
]

CHATS = {
    "plain": {"messages": PLAIN},
    "system": {"messages": [{"role": "system", "content": "Be brief.\nVery brief."}] + PLAIN},
    "turns": {"messages": PLAIN + [{"role": "user", "content": "<tool_response>x</tool_response>"},
                                   {"role": "assistant", "content": "<think>\nA result.\n</think>\n\nOk."},
                                   {"role": "user", "content": "漢字 😀"}, {"role": "assistant", "content": "<think>hm</think>\n\nYes\n"}]},
    "tools": {"messages": CALLS, "tools": TOOLS},
    "two calls": {"messages": CALLS[1:2] + [
        {"role": "assistant", "content": "I look.", "reasoning_content": "Two calls.", "tool_calls": [
            call("get_weather", {"place": "Bern"}, "aaaaaaaaa"), call("now", {}, "bbbbbbbbb")]},
        {"role": "tool", "tool_call_id": "aaaaaaaaa", "name": "get_weather", "content": "rain"},
        {"role": "tool", "tool_call_id": "bbbbbbbbb", "name": "now", "content": "12:00"},
        {"role": "assistant", "content": "Rain at noon."}], "tools": TOOLS[::-1]},
    "one call": {"messages": CALLS[1:2] + [
        {"role": "assistant", "tool_calls": [call("now", "{\"zone\": \"CET\"}", "ccccccccc")]},
        {"role": "tool", "tool_call_id": "ccccccccc", "content": "12:00"},
        {"role": "assistant", "content": "Noon."}], "tools": TOOLS[1:]},
    "reasoning": {"messages": [PLAIN[0], {"role": "assistant", "reasoning_content": "Adding.\n", "content": "4"},
                               {"role": "user", "content": "Sure?"}, {"role": "assistant", "reasoning_content": "Check.", "content": "Yes."}]},
    "parts": {"messages": [{"role": "system", "content": [{"type": "text", "text": "Look."}]},
                           {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "image"}, {"type": "text", "text": "this?"}]},
                           {"role": "assistant", "content": [{"type": "text", "text": " A cat. "}]}]},
    "text parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                                {"role": "assistant", "content": "c"}]},
    "wrong turns": {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "critic", "content": None}]},
    "options": {"messages": PLAIN[:1], "chat_template_kwargs": {"add_generation_prompt": True, "enable_thinking": False, "thinking": True,
                                                               "reasoning_effort": "low", "date_string": "1 May 2026"}},
}


class FixedDate(datetime.datetime):
    """The date that render_chats takes for today."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def bare_tokenizer(template):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), chat_template=template, **TOKENS)


def expected(tokenizer, chat):
    options = dict(chat.get("chat_template_kwargs", {}))
    try:
        return tokenizer.apply_chat_template(chat["messages"], tools=chat.get("tools"), tokenize=False, **options), None
    except Exception as error:  # of any kind: templates call methods of values that lack them
        return None, f"{type(error).__name__}: {error}"


def answers(program, folder, chats):
    lines = "".join(json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats)
    run = subprocess.run([program, str(folder)], input=lines, capture_output=True, text=True, check=True, encoding="utf-8")
    return [json.loads(line) for line in run.stdout.split("\n") if line]


def templates(folders):
    """(name, folder that render_chats reads, tokenizer)"""
    for folder in map(Path, folders):
        for file in sorted(folder.glob("*.jinja")):
            with tempfile.TemporaryDirectory() as made:
                Path(made, "tokenizer_config.json").write_text(json.dumps(TOKENS))
                Path(made, "chat_template.jinja").write_bytes(file.read_bytes())
                yield file.stem, made, bare_tokenizer(file.read_text())
        for model in sorted(path.parent for path in folder.glob("*/tokenizer_config.json")):
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(model)
            except (ValueError, OSError) as error:
                print(f"{model.name}: left out, as transformers cannot open it: {str(error).splitlines()[0]}")
                continue
            if tokenizer.chat_template is not None:
                yield model.name, model, tokenizer


def verdict(ours, text, error):
    if error is None:
        return "equal" if ours.get("text") == text else "different" if "text" in ours else "we refuse"
    return "they refuse" if "text" in ours else "both refuse"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--verbose", action="store_true", help="both answers where they differ")
    arguments = parser.parse_args()
    chat_template_utils.datetime = FixedDate
    totals, width = collections.Counter(), 44
    print(" " * width, *(f"{name:<12}" for name in CHATS))
    for name, folder, tokenizer in templates(arguments.folders):
        row = []
        for (kind, chat), ours in zip(CHATS.items(), answers(arguments.program, folder, CHATS.values())):
            text, error = expected(tokenizer, chat)
            row.append(verdict(ours, text, error))
            if arguments.verbose and row[-1] not in ("equal", "both refuse"):
                print(f"--- {name}, {kind}: {row[-1]}\n  ours:   {ours}\n  theirs: {error or text!r}")
            elif arguments.verbose and row[-1] == "both refuse":
                print(f"--- {name}, {kind}: both refuse\n  ours:   {ours}\n  theirs: {error}")
        totals.update(row)
        print(f"{name[:width]:<{width}}", *(f"{cell:<12}" for cell in row))
    print(", ".join(f"{count} {cell}" for cell, count in totals.most_common()))
    return 0 if set(totals) <= {"equal", "both refuse"} else 1


if __name__ == "__main__":
    sys.exit(main())
