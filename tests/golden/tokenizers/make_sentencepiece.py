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

# Unigram models, with and without bytes for what is unknown, and SentencePiece's map of characters.
import base64
import tempfile

import tokenizers
from transformers.convert_slow_tokenizer import import_protobuf

RULES = {"Å": "A", "é": "e", "ﬁ": "fi", "①": "1", "　": " ", "ｆ": "f", "ú": "", "e\u0301": "E"}
with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as rules:
    for source, target in RULES.items():
        hexadecimal = [" ".join(f"{ord(c):X}" for c in text) for text in (source, target)]
        rules.write("\t".join(hexadecimal) + "\n")
    rules.flush()
    for name, falls_back in (("unigram", False), ("unigram-bytes", True)):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for text in STRINGS * 3 for line in text.splitlines() if line.strip("\0")]),
            model_writer=model, vocab_size=600 if falls_back else 500, model_type="unigram", byte_fallback=falls_back,
            character_coverage=0.98, normalization_rule_tsv=rules.name, minloglevel=2, hard_vocab_limit=False)
        proto = import_protobuf().ModelProto()
        proto.ParseFromString(model.getvalue())
        charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps({
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                              "split": not falls_back},
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": falls_back,
                      "vocab": [[piece.piece, piece.score] for piece in proto.pieces]}}))
        folder = HERE / name
        write(folder, "tokenizer.json", tokenizer.to_str())
        write(folder, "answers.json", [{"ids": tokenizer.encode(text).ids} for text in STRINGS])
