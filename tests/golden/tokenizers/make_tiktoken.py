#!/usr/bin/env python3
"""Makes small vocabularies of tiktoken in the folders of the models that have such, with golden answers.

  python3 make_tiktoken.py      (needs tiktoken, mistral-common, transformers >= 5, regex)

One byte pair encoding is trained here on the strings of make.py and this repository's README. answers.json has, for each
string: in kimi/, qwen1/ and glm4/ what tiktoken makes of it with the pattern and the special tokens of that model's own
class; in llama3/ what transformers makes of the folder; in tekken/ what mistral-common makes of it, with special tokens
cut out first, which it leaves to its requests; in config-tokens/ what transformers makes of a tokenizer.json that lacks
tokens which tokenizer_config.json has.
"""
import base64
import collections
import json
import pathlib
import re
import unicodedata

import regex
import tiktoken
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
MORE = ["<|im_start|>user\nHi<|im_end|>\n<|im_end|> x", "[gMASK] <sop><|user|>", "汉字and漢字ABCdefGHI'LL it'S",
        "<|extra_3|><|reserved_token_700|>[INST] a [/INST]</s><tool> b<tool>", "e\u0301\u0301 \u1e9b\u0323 \u2126",
        "aaaaaaaaaaaaaaaaaaaaaaaaa", "Straßenbahn ǅungla Ⅷ½ 12345678", "\u3000全角\u00a0\u2003x", "𝕏𠮷野家 ᄀᆞᆷ"]
STRINGS = json.loads((HERE / "tokenizers.json").read_text())["strings"] + MORE
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
KIMI = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
          r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")


def train(count):
    """Tokens by their ranks: all bytes, then the most frequent pairs."""
    text = "\n".join(STRINGS * 2) + (HERE.parents[2] / "README.md").read_text()
    words = collections.Counter(tuple(bytes([b]) for b in word.encode()) for word in regex.findall(CL100K, text))
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < count:
        pairs = collections.Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        first, second = min((-times, pair) for pair, times in pairs.items() if pair[0] + pair[1] not in tokens)[1]
        tokens.append(first + second)
        merged = collections.Counter()
        for word, times in words.items():
            parts, i = [], 0
            while i < len(word):
                both = word[i:i + 2] == (first, second)
                parts.append(first + second if both else word[i])
                i += 2 if both else 1
            merged[tuple(parts)] += times
        words = merged
    return tokens


def write(folder, name, value):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) + "\n")


def vocabulary(tokens):
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))


def answers(folder, encode):
    write(folder, "answers.json", [{"text": text, "ids": list(encode(text))} for text in STRINGS])


def encoding(pattern, tokens, special):
    return tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks={t: i for i, t in enumerate(tokens)},
                             special_tokens=special)


def added(names, special=True):
    return {str(i): {"content": name, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": special} for name, i in names.items()}


TOKENS = train(600)
END = len(TOKENS)

folder = HERE / "kimi"
given = {"[BOS]": END, "[EOS]": END + 1, "<|im_end|>": END + 2, "<|im_user|>": END + 3, "<|im_start|>": END + 17}
write(folder, "tiktoken.model", vocabulary(TOKENS))
write(folder, "tokenizer_config.json", {
    "added_tokens_decoder": added(given), "tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]",
    "eos_token": "[EOS]", "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]}})
names = {i: name for name, i in given.items()}
model = encoding(KIMI, TOKENS, {names.get(i, f"<|reserved_token_{i}|>"): i for i in range(END, END + 256)})
answers(folder, lambda text: model.encode(text, allowed_special="all"))

folder = HERE / "qwen1"
write(folder, "qwen.tiktoken", vocabulary(TOKENS))
write(folder, "tokenizer_config.json", {
    "tokenizer_class": "QWenTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}})
names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
qwen = encoding(QWEN, TOKENS, {name: END + i for i, name in enumerate(names)})
answers(folder, lambda text: qwen.encode(unicodedata.normalize("NFC", text), allowed_special="all"))

folder = HERE / "glm4"
given = {name: END + i for i, name in enumerate(["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
                                                 "<|system|>", "<|user|>", "<|assistant|>"])}
write(folder, "tokenizer.model", vocabulary(TOKENS))
write(folder, "tokenizer_config.json", {
    "added_tokens_decoder": added(given), "tokenizer_class": "ChatGLM4Tokenizer", "eos_token": "<|endoftext|>",
    "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLM4Tokenizer", None]}})
glm = encoding(CL100K, TOKENS, given)
answers(folder, lambda text: [given["[gMASK]"], given["<sop>"]] + glm.encode(text, allowed_special="all"))

folder = HERE / "llama3"
given = {"<|begin_of_text|>": END, "<|end_of_text|>": END + 1, "<|im_start|>": END + 5}
write(folder, "tokenizer.model", vocabulary(TOKENS))
write(folder, "config.json", {"model_type": "llama"})
write(folder, "tokenizer_config.json", {"added_tokens_decoder": added(given), "bos_token": "<|begin_of_text|>",
                                        "eos_token": "<|end_of_text|>", "tokenizer_class": "PreTrainedTokenizerFast"})
llama = AutoTokenizer.from_pretrained(folder)
answers(folder, lambda text: llama(text)["input_ids"])

# Two tokens more than it uses; ranks are from 0, ids behind the special tokens.
folder = HERE / "tekken"
write(folder, "tekken.json", {
    "config": {"pattern": TEKKEN, "num_vocab_tokens": END, "default_vocab_size": END - 2 + 20,
               "default_num_special_tokens": 20, "version": "v11"},
    "vocab": [{"rank": i, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
              for i, token in enumerate(TOKENS)],
    "special_tokens": [{"rank": i, "token_str": name, "is_control": True}
                       for i, name in enumerate(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])]})
tekken = Tekkenizer.from_file(folder / "tekken.json")
special = re.compile("(" + "|".join(re.escape(name) for name in tekken._special_tokens_reverse_vocab) + ")")


def encode_tekken(text):
    ids = [tekken.bos_id]
    for part in special.split(text):
        known = tekken._special_tokens_reverse_vocab.get(part)
        ids += tekken.encode(part, bos=False, eos=False) if known is None else [known]
    return ids


answers(folder, encode_tekken)

# A tokenizer.json whose config has more: ids at its end, in the order of the config's ids; named special tokens too.
folder = HERE / "config-tokens"
write(folder, "tokenizer.json", {**json.loads((HERE / "bases.json").read_text())["gpt2"], "version": "1.0",
                                 "truncation": None, "padding": None})
size = AutoTokenizer.from_pretrained(folder).backend_tokenizer.get_vocab_size()
write(folder, "tokenizer_config.json", {
    "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<|im_end|>",
    "additional_special_tokens": ["<tool>", "<|more|>"],
    "added_tokens_decoder": {**added({"<|im_start|>": size}), **added({"<tool>": size + 1}, False)}})
fast = AutoTokenizer.from_pretrained(folder)
answers(folder, lambda text: fast(text)["input_ids"])
