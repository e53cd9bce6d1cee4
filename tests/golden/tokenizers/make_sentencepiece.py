#!/usr/bin/env python3
"""Makes the golden answers for folders without a tokenizer.json.

  python3 make_sentencepiece.py      (needs sentencepiece, transformers >= 5)

sentencepiece/: a small byte pair encoding trained by SentencePiece on the strings of make.py, tokenizer_config.json, and
answers.json: what transformers' AutoTokenizer of that folder makes of every string. gpt2/: vocab.json and merges.txt of
the GPT-2 base of bases.json, and the same.
"""
import io
import json
import pathlib

import sentencepiece
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
STRINGS = json.loads((HERE / "tokenizers.json").read_text())["strings"]


def write(folder, name, value):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) + "\n")


def answers(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write(folder, "answers.json", [{"ids": tokenizer(text)["input_ids"]} for text in STRINGS])


model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([line for text in STRINGS * 3 for line in text.splitlines() if line.strip("\0")]),
    model_writer=model, vocab_size=700, model_type="bpe", byte_fallback=True, character_coverage=0.98,
    normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<|user|>"],
    minloglevel=2)
folder = HERE / "sentencepiece"
write(folder, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>",
                                        "eos_token": "</s>", "unk_token": "<unk>", "legacy": False})
(folder / "tokenizer.model").write_bytes(model.getvalue())
answers(folder)

base = json.loads((HERE / "bases.json").read_text())["gpt2"]
folder = HERE / "gpt2"
write(folder, "vocab.json", base["model"]["vocab"])
merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in base["model"]["merges"]]
write(folder, "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
write(folder, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>",
                                        "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})
answers(folder)
