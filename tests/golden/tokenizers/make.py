#!/usr/bin/env python3
"""Makes the golden answers of the tokenizer tests with the `tokenizers` and `transformers` libraries.

  python3 make.py DEMO_MODEL_FOLDER

Writes beside itself: bases.json (small tokenizers, trained on the strings below), tokenizers.json (variants of the bases, and what each makes of
every string: ids with and without special tokens, decoded texts), chats.json (chat templates and what they render).
"""
import json
import pathlib
import sys

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
GPT2 = "ByteLevel"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")

STRINGS = [
    "", " ", "  ", "\n", "a", "Hello world", " Hello  world ", "Hello,   world!!!   ", "I'll say it's what they've done, WE'RE sure: he'd go. I'M",
    "line one\nline two\r\nline three\r\rend\n\n\n", "\ttab\t\ttabs \t mixed", "trailing spaces    ", "    leading spaces",
    "1234567890 12 345 6,789.01", "3²=9, ½ cup, Ⅷ, ١٢٣ ۴۵۶ १२३ 一二三 ②", "don\u2019t \u2018quote\u2019 \u201cdouble\u201d \u2014 dash \u2026",
    "na\u00efve caf\u00e9 nai\u0308ve cafe\u0301 A\u030a \u212b \u1e9b\u0323 \ufb01n", "a\u0301\u0302\u0303\u0304 x\u0323\u0307 \u0344 \u0e33",
    "\u00df \u0130stanbul I\u0131 \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u01c5 \u1f88", "日本語のテキスト、漢字とカナ。", "中文分词测试：你好，世界！",
    "한국어 문장 \u1112\u1161\u11ab", "ภาษาไทย ไม่มีช่องว่าง", "नमस्ते दुनिया क्षत्रिय", "العربية: مرحبا بالعالم، ١٢٣", "עברית: שָׁלוֹם עוֹלָם", "Русский текст, ёлка Ёж",
    "Ελληνικά κείμενο", "mixedКириллицаand漢字andعربي123", "😀 😃😄 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☺", "zero\u200bwidth\u200djoin\u200cer \u2060 \ufeffbom", "no\u00a0break\u202fspace\u3000wide\u2009thin\u1680ogham\u180emvs\u0085nel\u2028ls\u2029ps",
    "nul\x00inside \x01\x02\x1f\x7f \x1c\x1d", "private \ue000 \U000f0000 unassigned \U000e0fff \uffff \ufffd", "\U00010348 gothic 𝒜𝔅𝕔 𐐷 🀄",
    "x" * 600, "ab" * 300, "word" * 150 + " " + "Wor" * 100, " " * 300, " " * 40 + "x" + "\n" * 40 + "y", "\u2581under \u2581\u2581line_ _ \u0120G\u010a", "!?" * 100, "é" * 200, "漢" * 150, "\u0301" * 50,
    "<s>at start", "in the<s>middle </s> of  <s>  text<s>", "<|begin|>chat<|turn|>user<|end|> \n <|turn|> <|end|><|end|>", "<|begin", "<0x41> <0xE6> <unk>",
    "strip  <left>  both  <right>  and  <both>  done", "<left><right><both><left>", "  <left>", "<right>  ", "oneword wordone word xword wordx word. (word) _word_ word1 wordé é word",
    "CASE Case case", "the THE\u00c9 the\u00e9 The", "f(x) = {a: [1, 2], 'b': \"c\"}; // x != y && z || $w @ #1 ~`^%", "https://example.org/a?b=c&d=%20#e", "x=1;\n\tif (y) {\n\t\treturn z;\n\t}\n", "\\d+\\s*(?:a|b)", "a\u00adb soft", "ﷺ ㎏ ①  ｆｕｌｌ", "\u1100\u1161\u11a8 \uac00\u11a8", "A" + "\u0300\u0316" * 3 + "B",
]

CORPUS = STRINGS + [
    "Once upon a time there was a small house by the sea, and in it lived an old man with his dog.",
    "The dog said: I'm hungry, you're late, and they've eaten it all. We'll see what the others'd do!",
    "Numbers like 1, 22, 333, 4444 and 2024 stand in tables; so do words, wordings and wordless songs.",
] * 4
STRINGS.append("a tablet, tablets and tablet")  # not in the training text


def added(content, **flags):
    return AddedToken(content, **{"normalized": False, "special": False, **flags})


def byte_level(pre_tokenizer, vocabulary_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def bases():
    gpt2 = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 700)
    gpt2.add_special_tokens(["<|endoftext|>"])

    llama3 = byte_level(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), 600)
    llama3.add_special_tokens(["<|begin|>", "<|turn|>", "<|end|>"])
    llama3.add_tokens([added("<left>", lstrip=True), added("<right>", rstrip=True), added("<both>", lstrip=True, rstrip=True), added("word", single_word=True), added("CASE", normalized=True)])
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", llama3.token_to_id("<|begin|>"))])])

    # Llama-2's way: spaces become ▁, unknown characters become bytes.
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    llama2 = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    llama2.pre_tokenizer = pre_tokenizers.Metaspace()
    known = [text for text in CORPUS if all(ord(c) < 0x600 for c in text)]
    llama2.train_from_iterator(known, trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False, limit_alphabet=100))
    description = json.loads(llama2.to_str())
    description["added_tokens"] = description["added_tokens"][:3]
    description["pre_tokenizer"] = None
    description["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    description["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    description["post_processor"] = {"type": "TemplateProcessing", "single": template, "pair": template + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}

    llama3 = json.loads(llama3.to_str())
    llama3["model"]["ignore_merges"] = True
    llama3["model"]["merges"] = [" ".join(pair) for pair in llama3["model"]["merges"]]
    # Reached by no merge: found only by ignore_merges. It takes the first id behind the vocabulary, so the added tokens move up by one.
    vocabulary = llama3["model"]["vocab"]
    assert "Ġtablet" not in vocabulary
    vocabulary["Ġtablet"] = len(vocabulary)
    for token in llama3["added_tokens"]:
        token["id"] += token["id"] >= len(vocabulary) - 1
    begin = next(token["id"] for token in llama3["added_tokens"] if token["content"] == "<|begin|>")
    llama3["post_processor"]["processors"][1]["special_tokens"]["<|begin|>"]["ids"] = [begin]
    return {"gpt2": json.loads(gpt2.to_str()), "llama3": llama3, "llama2": description}


def flagged(content, number, **flags):
    return {"id": number, "content": content, **{"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}, **flags}


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def variants():
    """(name, base, changes to tokenizer.json, changes to its model)"""
    yield "gpt2", "gpt2", {}, {}
    yield "gpt2 with prefix space", "gpt2", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}, {}
    yield "gpt2 without decoder", "gpt2", {"decoder": None}, {}
    yield "roberta", "gpt2", {"post_processor": {"type": "RobertaProcessing", "sep": ["b", 66], "cls": ["a", 65], "trim_offsets": True, "add_prefix_space": False}}, {}
    yield "bert", "gpt2", {"post_processor": {"type": "BertProcessing", "sep": ["b", 66], "cls": ["a", 65]}}, {}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield form, "gpt2", {"normalizer": {"type": form}}, {}
    yield "lower case and strip", "gpt2", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True}]}}, {}
    yield "strip left", "gpt2", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": False}}, {}
    yield "replace by regex", "gpt2", {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[a-c]+"}, "content": "<>"}}, {}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for pattern in ({"Regex": r"\s"}, {"String": "or"}):
            yield f"split {behavior} {list(pattern)[0]}", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(pattern, behavior), BYTES]}}, {}
        yield f"split {behavior} inverted", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split({"Regex": r"\w+"}, behavior, True), BYTES]}}, {}
    patterns = [
        r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        r"[\p{Han}\p{Hiragana}]+|[\p{L}&&[^\p{Han}]]+|[[:punct:]]+|\p{Letter}|[^\S\n]+|\W",
        r"(?<=\p{Lu})(?=\p{Ll})|\d{,2}\.|\h{2}|\u0041|^.|.$",
        r"[a-z[A-Z]&&[^aeiou]]+|[^\w[:space:]]|[\]\[\-]|(?m:b.)",
    ]
    for pattern in patterns:
        yield f"split by {pattern}", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split({"Regex": pattern}, "Isolated"), BYTES]}}, {}
    for individual in (True, False):
        yield f"digits {individual}", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": individual}, BYTES]}}, {}
    yield "punctuation", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "MergedWithNext"}, BYTES]}}, {}
    yield "whitespace", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, BYTES]}}, {}
    yield "whitespace split", "gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, BYTES]}}, {}
    yield "no pre-tokenizer", "gpt2", {"pre_tokenizer": None}, {}
    yield "llama3", "llama3", {}, {}
    yield "llama3 with merges", "llama3", {}, {"ignore_merges": False}
    tokens = [flagged("WORD", 5000, normalized=True, single_word=True), flagged("  ", 7, normalized=True), flagged("    ", 8), flagged("the", 3, normalized=True, lstrip=True), flagged("world", 9, special=True, rstrip=True), flagged("<s>", 10, special=True, lstrip=True, rstrip=True)]
    yield "flags of added tokens", "gpt2", {"added_tokens": tokens, "normalizer": {"type": "Lowercase"}}, {}
    yield "llama2", "llama2", {}, {}
    yield "llama2 unknown kept apart", "llama2", {}, {"fuse_unk": False, "byte_fallback": False}
    yield "llama2 unknown fused", "llama2", {}, {"byte_fallback": False}
    yield "llama2 without unknown", "llama2", {}, {"byte_fallback": False, "unk_token": None}
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            part = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
            yield f"metaspace {scheme} {cut}", "llama2", {"normalizer": None, "pre_tokenizer": part, "decoder": part}, {}
    legacy = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    yield "metaspace legacy", "llama2", {"normalizer": None, "pre_tokenizer": legacy, "decoder": legacy}, {}
    yield "gemma", "llama2", {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, "pre_tokenizer": split({"String": " "}, "MergedWithPrevious")}, {}


# Rendered in full only for this many variants; the others keep a selection, which is what makes the file small.
def chosen(name):
    return range(len(STRINGS)) if name in ("gpt2", "llama3", "llama2", "demo") else [i for i, text in enumerate(STRINGS) if len(text) < 90]


def answers(tokenizer, name):
    rows = []
    for i in chosen(name):
        ids = tokenizer.encode(STRINGS[i]).ids
        plain = tokenizer.encode(STRINGS[i], add_special_tokens=False).ids
        row = {"string": i, "ids": ids}
        if plain != ids:
            row["plain"] = plain
        row["decoded"] = tokenizer.decode(ids)
        everything = tokenizer.decode(ids, skip_special_tokens=False)
        if everything != row["decoded"]:
            row["decoded_all"] = everything
        if row["decoded"] == STRINGS[i]:
            del row["decoded"]  # the string itself
        rows.append(row)
    return rows


CHATS = [
    [{"role": "user", "content": " Hi \n"}],
    [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": " 4 "}],
    [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "\nHello!"}, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "<think>\nThey leave.\n</think>\n\nBye!"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nx\n</think>\n\nb"}, {"role": "user", "content": "<tool_response>c</tool_response>"}, {"role": "assistant", "content": "d"}],
    [{"role": "user", "content": "über 漢字 \u00a0"}, {"role": "assistant", "content": ""}],
]

# Templates written for this test, in the forms and with the expressions that published ones have.
CHAT_ML = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
TEMPLATES = {
    "ChatML": CHAT_ML + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "ChatML with a default system message": CHAT_ML.replace("{{'", "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou answer questions.<|im_end|>\n' }}{% endif %}{{'", 1),
    "ChatML over several lines": """{%- if messages[0]["role"] == "system" %}
    {{- '<|im_start|>system\\n' + messages[0]["content"] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a test.\\nOnly a test.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
""",
    "Qwen3": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if ns.searching and message.role == "user" and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query_index = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
""",
    "Llama-3": "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}",
    "Llama-2": "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set system_message = false %}{% endif %}{% for message in turns %}{% if loop.first and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
}


def write(name, value):
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(part, separators=(',', ':'), ensure_ascii=False)}" for key, part in value.items())
    (HERE / name).write_bytes(("{\n" + lines + "\n}\n").encode())


def main():
    made = bases()
    write("bases.json", made)
    result = {"versions": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}, "strings": STRINGS}
    for name, base, changes, model_changes in variants():
        description = {**made[base], **changes, "model": {**made[base]["model"], **model_changes}}
        result[name] = {"base": base, "changes": changes, "model": model_changes, "answers": answers(Tokenizer.from_str(json.dumps(description)), name)}
    result["demo"] = {"base": "demo", "changes": {}, "model": {}, "answers": answers(Tokenizer.from_file(str(pathlib.Path(sys.argv[1]) / "tokenizer.json")), "demo")}
    write("tokenizers.json", result)

    chats = {}
    for name, template in TEMPLATES.items():
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made["gpt2"])), bos_token="<s>", eos_token="</s>", chat_template=template)
        chats[name] = {"template": template, "rendered": [[chat, tokenizer.apply_chat_template(chat, tokenize=False)] for chat in CHATS]}
    write("chats.json", chats)


main()
