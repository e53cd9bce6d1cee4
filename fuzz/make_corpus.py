#!/usr/bin/env python3
"""Writes the seeds of corpus/ that follow from the golden files of the tests; regressions there are kept.

A seed with several parts has a control character between them (fuzz.h). Usage: fuzz/make_corpus.py
"""
import base64
import gzip
import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"
SEPARATOR = b"\x1e"


def write(target, name, *parts):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part if isinstance(part, bytes) else part.encode() if isinstance(part, str) else
             json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode() for part in parts]
    name = "".join(c if c.isalnum() else "-" for c in name).strip("-")
    (folder / ("seed-" + name)[:60]).write_bytes(SEPARATOR.join(parts))


def header_of(tensors, metadata=None):
    sizes = {"F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I64": 8, "F8_E4M3": 1, "U8": 1, "I8": 1, "F64": 8}
    header, offset = ({"__metadata__": metadata} if metadata else {}), 0
    for name, dtype, shape in tensors:
        count = 1
        for extent in shape:
            count *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + count * sizes[dtype]]}
        offset += count * sizes[dtype]
    return header, offset


def safetensors():
    for name, tensors in {
            "one": [("a", "F32", [2, 3])],
            "dtypes": [("d", "F64", [1]), ("i", "I64", [2]), ("a", "F32", [2]), ("b", "BF16", [2, 2]), ("h", "F16", [2]),
                       ("f", "F8_E4M3", [4]), ("u", "U8", [3])],
            "empty": [("a", "F32", [0, 4]), ("scalar", "F32", [])]}.items():
        header, size = header_of(tensors, {"format": "pt"})
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        write("safetensors", name, struct.pack("<Q", len(text)) + text + bytes(range(256))[:size])


def config():
    families = "llama-bare gemma3 gpt2 falcon-40b mpt gpt_neo deepseek_v3 gpt_oss llama4 mixtral phi3-longrope qwen2_moe bloom"
    for name in families.split():
        write("config", name, json.loads((GOLDEN / "families" / name / "config.json").read_text()))
    for name in ("rope-yarn-new", "rope-llama3-new", "rope-dynamic-within"):
        write("config", name, json.loads((GOLDEN / "models" / name / "config.json").read_text()))


def index():
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write("index", "whole", {"metadata": {"total_size": 24}, "weight_map": {"a": names[0], "b": names[1]}})
    write("index", "one", {"weight_map": {"b": names[1]}})
    write("index", "outside", {"weight_map": {"a": "../" + names[0]}})


def small(model, count=80):
    """A BPE model with its first tokens and merges; ids stay below `count`."""
    model = dict(model)
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    if any(len(token) == 1 and token in "abx" for token in tokens):
        tokens = [t for t in tokens if not t.startswith("<0x")][:4] + ["a", "b", "x", "Ġ", "▁"] + tokens[-count:]
    vocab = {}
    for token in tokens:
        if token not in vocab:
            vocab[token] = len(vocab)
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    kept = [i for i, (a, b) in enumerate(pairs) if a in vocab and b in vocab and a + b in vocab]
    model["vocab"], model["merges"] = vocab, [model["merges"][i] for i in kept][:count]
    return model


def tokenizers():
    bases = json.loads((GOLDEN / "tokenizers" / "bases.json").read_text())
    cases = json.loads((GOLDEN / "tokenizers" / "tokenizers.json").read_text())
    for name, case in cases.items():
        if name in ("versions", "strings", "demo"):
            continue
        tokenizer = {**bases[case["base"]], **case["changes"]}
        tokenizer["model"] = small({**tokenizer["model"], **case["model"]}, 30)
        write("tokenizer_json", name, tokenizer, "")
    for name in ("unigram", "unigram-bytes"):
        tokenizer = json.loads((GOLDEN / "tokenizers" / name / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"] = tokenizer["model"]["vocab"][:60]
        write("tokenizer_json", name, tokenizer, "")

    for name, case in cases.items():
        for pattern in patterns(case.get("changes", {}) if isinstance(case, dict) else {}):
            write("regex", f"{abs(hash_of(pattern)):08x}", pattern, "")
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    write("regex", "gpt2", gpt2, "it's 12  öÖ")

    gpt2 = small(bases["gpt2"]["model"])
    merges = "#version: 0.2\n" + "\n".join(" ".join(merge) for merge in gpt2["merges"]) + "\n"
    write("older_files", "gpt2", gpt2["vocab"], merges, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "!"},
          {"eos_token": {"content": "!", "lstrip": False}}, {"<extra>": len(gpt2["vocab"])}, "ab xx<extra>")


def hash_of(text):
    value = 0
    for c in text.encode():
        value = (value * 31 + c) % (1 << 32)
    return value


def patterns(tree):
    if isinstance(tree, dict):
        if isinstance(tree.get("Regex"), str):
            yield tree["Regex"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            yield from patterns(child)


def field(number, value):
    """A field of a protobuf message."""
    if isinstance(value, bool) or isinstance(value, int):
        return bytes([number << 3]) if number < 16 and value < 0 else varint(number << 3) + varint(int(value))
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def tokenizer_model():
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    words = ["<unk>", "<s>", "</s>", "▁", "H", "e", "l", "o", "w", "r", "d", "ll", "He", "▁He", "ö"]
    pieces = b"".join(
        field(1, field(1, word) + field(2, -float(i)) + field(3, kinds.get(word, 1))) for i, word in enumerate(words))
    bytes_ = b"".join(field(1, field(1, f"<0x{i:02X}>") + field(2, 0.0) + field(3, 6)) for i in range(256))
    normalizer = field(3, field(1, "identity") + field(3, True) + field(4, False) + field(5, True))
    for name, model_type in (("unigram", 1), ("bpe", 2)):
        write("tokenizer_model", name, pieces + field(2, field(3, model_type)) + normalizer)
    write("tokenizer_model", "bpe-bytes", pieces + bytes_ + field(2, field(3, 2) + field(35, True)) + normalizer)


def chats():
    cases = json.loads((GOLDEN / "tokenizers" / "chats.json").read_text())
    for name, case in cases.items():
        tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
        write("chat_template", name, {**tokens, "chat_template": case["template"]}, "", " Hi\n")
        write("chat_template", name + "-file", tokens, case["template"], "Hi")
    language = json.loads((GOLDEN / "jinja" / "language.json").read_text())
    for group, pairs in language["groups"].items():
        few = [template for template, text in pairs if text and len(template) < 300][::3]
        for i in range(0, len(few), 6):
            write("chat_template", f"language-{group}-{i // 6}", "", "\n".join(few[i:i + 6]), {
                "messages": language["variables"]["messages"], "chat_template_kwargs": {
                    key: value for key, value in language["variables"].items() if key not in ("messages", "tools")}})
    template = {"chat_template": cases["ChatML"]["template"], "bos_token": "<s>"}
    lines = {
        "text": [{"text": "ab ab <s>"}, {"text": "b"}],
        "messages": [{"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "ba"}]}],
        "ids": [{"input_ids": [1, 2, 3, 4, 0]}, {"input_ids": [0, 2147483647]}],
        "arrays": [[1, 2, 3, 4], [2]]}
    for name, values in lines.items():
        write("jsonl", name, "\n".join(json.dumps(value) for value in values) + "\n", template)


def recipes():
    write("recipe", "fields", {"bits": 3, "group_size": 32, "sym": False, "damp_percent": 0.05,
                               "refine": "r c2 r", "average_bits": 3.5, "method": "gptq", "order": "natural",
                               "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.down_proj"]]}, "")
    write("recipe", "rules", {"preset": "best", "dynamic": {r"model\.layers\.[0-2]\..*": {"bits": 8, "group_size": -1},
                                                            "+:.*up_proj$": {"sym": False}, "-:.*down": {}}}, "")
    write("recipe", "quantize-config", {"bits": 4, "group_size": 128, "quant_method": "gptq", "checkpoint_format": "gptq",
                                        "lm_head": True, "meta": {"quantizer": ["gptq.cpp:1"]}}, "lm_head")
    for name, text in {"all": "cpu", "auto": "auto", "balanced": "balanced_low_0", "sim": "sim:1"}.items():
        write("device_map", name, text, {"sim:0": "1GiB", "sim:1": 1000000, "cpu": "8GB"})
    write("device_map", "json", {"": "cpu"}, "")
    write("device_map", "units", {"model.embed_tokens": 0, "model.layers.0": "sim:0", "model.layers": "sim:1",
                                  "model.norm": "cpu", "lm_head": "disk"}, {"sim:0": "1GB", "sim:1": "20MB"})


def quantized():
    model = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2, "vocab_size": 16, "max_position_embeddings": 16}
    linears = {"self_attn." + name: (32, 32) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    linears.update({"mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)})
    plain = [("model.embed_tokens.weight", "F32", [16, 32]), ("lm_head.weight", "F32", [16, 32]),
             ("model.norm.weight", "F32", [32]), ("model.layers.0.input_layernorm.weight", "F32", [32]),
             ("model.layers.0.post_attention_layernorm.weight", "F32", [32])]

    def folder(name, config, tensors_of, side=""):
        tensors = []
        for linear, (out, into) in linears.items():
            tensors += [(f"model.layers.0.{linear}.{part}", dtype, shape) for part, dtype, shape in tensors_of(out, into)]
        tensors = sorted(tensors + plain, key=lambda tensor: ("I64", "F32", "I32", "F16", "F8_E4M3", "U8", "I8").index(tensor[1]))
        header, _ = header_of(tensors)
        # The shapes, which come first, and zeros; the target repeats them.
        data = b"".join(struct.pack("<2q", *linears[tensor[0].split(".", 3)[3].rsplit(".", 1)[0]])
                        for tensor in tensors if tensor[1] == "I64")
        config = {**model, "quantization_config": config} if config else model
        write("quantized", name, config, header, data or b"\0", side)

    def gptq(bits, group, g_idx=True):
        return lambda out, into: [("qweight", "I32", [into * bits // 32, out]), ("qzeros", "I32", [into // group, out * bits // 32]),
                                  ("scales", "F16", [into // group, out])] + ([("g_idx", "I32", [into])] if g_idx else [])

    base = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
    folder("gptq", base, gptq(4, 32))
    folder("gptq-v2", {**base, "bits": 2, "checkpoint_format": "gptq_v2", "sym": False, "group_size": 16}, gptq(2, 16))
    folder("gptq-3-bits", {**base, "bits": 3, "desc_act": True}, gptq(3, 32))
    folder("gptq-dynamic", {**base, "dynamic": {".*mlp.*": {"bits": 8}}}, gptq(4, 32, False))
    folder("gptq-side-file", None, gptq(8, 32), {**base, "bits": 8})
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    compressed = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
                  "config_groups": {"group_0": {"weights": weights, "targets": ["Linear"]}}, "ignore": ["lm_head"]}
    folder("compressed", compressed, lambda out, into: [
        ("weight_packed", "I32", [out, into // 8]), ("weight_scale", "F16", [out, into // 32]), ("weight_shape", "I64", [2])])
    folder("awq", {"quant_method": "awq", "bits": 4, "version": "gemm"}, lambda out, into: [
        ("qweight", "I32", [into, out // 8]), ("qzeros", "I32", [into // 32, out // 8]),
        ("scales", "F16", [into // 32, out])])
    folder("int8", {**compressed, "format": "int-quantized"}, lambda out, into: [
        ("weight", "I8", [out, into]), ("weight_scale", "F16", [out, 1])])
    folder("nvfp4", {**compressed, "format": "nvfp4-pack-quantized"}, lambda out, into: [
        ("weight_packed", "U8", [out, into // 2]), ("weight_scale", "F8_E4M3", [out, into // 16]),
        ("weight_global_scale", "F32", [1])])
    folder("fp8", {"quant_method": "fp8", "weight_block_size": [16, 16]}, lambda out, into: [
        ("weight", "F8_E4M3", [out, into]), ("weight_scale_inv", "F32", [out // 16, into // 16])])


def journal():
    run = {"run": {"version": "1", "files": {"model.safetensors": {"bytes": 1}}}}
    linear = {"name": "model.layers.0.mlp.up_proj", "out_features": 8, "in_features": 4, "bits": 4, "group_size": 4,
              "loss": 0.5, "error": None, "loss_after": [{"stage": "r", "loss": 0.25}], "target_shift": 0.0, "tokens": 10,
              "routed_tokens": None, "scales": {"least": 0.1, "median": 0.2, "largest": 0.3, "negative": 0.0},
              "damp_percent": 0.01, "dead_columns": 0, "block": 0, "expert": -1}
    part = {"part": 0, "dropped_rows": 0, "tensors": {"a.qweight": 18446744073709551615}, "linears": [linear]}
    states = {"states": 1, "file": "states-1", "digest": 5}
    measured = {"measured": [{"linears": ["a", "b"], "weights": 64, "candidates": [{"bits": 2, "loss": 0.5},
                                                                                  {"bits": 4, "loss": 0.1}]}]}
    write("journal", "whole", run, measured, part, {**part, "part": 1}, states)
    write("journal", "torn", run, part, "!0123456789abcdef0123456789abcdef {\"part\":1")
    write("journal", "another", {"run": {"version": "0"}}, part)
    write("journal", "order", run, {**part, "part": 1}, {**states, "states": 7})


def records():
    template = {"chat_template": "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"}
    turns = [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "ab"}]
    for name, text, key in [
            ("strings", '["ab", "a"]', ""), ("pretty", '[\n {\n  "text": "ab"\n }\n]\n', ""), ("ids", "[[1, 2], [3]]", ""),
            ("batch", '{"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}', ""), ("key", '{"body": "ab"}', "body"),
            ("alpaca", '[{"instruction": "a", "input": "b", "output": "ab"}]', ""),
            ("completion", '{"prompt": "a", "completion": "b"}', ""), ("values", '{\n"text": "a"}\n{"text":\n"b"}', ""),
            ("csv", 'id,text\r\n0,"a,""b""\nc"\r\n1,ab\r\n', ""), ("tsv", "id\ttext\n0\tab\n", "id"),
            ("sharegpt", json.dumps({"conversations": turns, "system": "a"}), "")]:
        write("records", name, text, template if name != "alpaca" else "", key)


def gzips():
    for name, data in {"text": b"some text", "empty": b"", "long": b"ab " * 400}.items():
        write("gzip", name, gzip.compress(data, mtime=0))
    write("gzip", "members", gzip.compress(b"a", mtime=0) + gzip.compress(b"b", 1, mtime=0) + bytes(8))


def vocabularies():
    merges = [b"he", b"ll", b"hell", b"Hello"[1:], "ö".encode(), b"  "]
    lines = "".join(f"{base64.b64encode(token).decode()} {256 + i}\n" for i, token in enumerate(merges))
    added = {str(262 + i): {"content": name, "special": True} for i, name in enumerate(["[gMASK]", "<sop>", "<s>"])}
    for name in ("TikTokenTokenizer", "QWenTokenizer", "ChatGLM4Tokenizer", "OtherTokenizer"):
        write("tiktoken", name, lines, {"tokenizer_class": name, "auto_map": {}, "added_tokens_decoder": added}, "")
    write("tiktoken", "converter", lines, {"added_tokens_decoder": added, "pad_token": "<pad>"}, "hell<s>Hello")
    config = {"pattern": r"\p{L}+|\s+|[^\s\p{L}]", "default_vocab_size": 265, "default_num_special_tokens": 4}
    more = "".join(f',{{"token_bytes":"{base64.b64encode(t).decode()}","rank":{256 + i}}}' for i, t in enumerate(merges))
    special = [{"rank": i, "token_str": name} for i, name in enumerate(["<unk>", "<s>", "</s>"])]
    write("tekken", "given", config, more, special, "")
    write("tekken", "old", {**config, "default_num_special_tokens": 20, "default_vocab_size": 282}, more, "null", "Hello </s>")
    write("config_tokens", "decoder", {"added_tokens_decoder": added, "additional_special_tokens": ["<x>"]}, "", "a<sop>b<x>")
    write("config_tokens", "map", {"bos_token": {"content": "ab", "lstrip": True}}, {"eos_token": "</s>"}, "a ab</s>")


for make in (safetensors, config, index, tokenizers, tokenizer_model, chats, recipes, quantized, journal, records, gzips,
             vocabularies):
    make()
