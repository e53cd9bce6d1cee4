#!/usr/bin/env python3
"""Makes device_maps.json beside it: the maps that accelerate gives to models of several shapes within several budgets.

    python make_device_maps.py            (needs torch and accelerate >= 1.15; no accelerator)

`models`: bytes of the units (embedding, each of the equal blocks, norm, head; a tied head has none) and the modules of a
block that hold weights. `cases`: a model, a word, max_memory in bytes, and `runs`, the answer: how many units in a row
are on which device, in the order of the model; one run where accelerate's map is one entry.
"""
import json
import logging
import random
import sys
from pathlib import Path

import torch
from accelerate import infer_auto_device_map, init_empty_weights
from accelerate.utils import get_balanced_memory
from torch import nn

logging.disable(logging.WARNING)  # "device 0 is not available"

WORDS = ["balanced", "balanced_low_0", "sequential"]


class Attention(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, hidden // 4, bias=False)
        self.v_proj = nn.Linear(hidden, hidden // 4, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)


class Mlp(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, 3 * hidden, bias=False)
        self.up_proj = nn.Linear(hidden, 3 * hidden, bias=False)
        self.down_proj = nn.Linear(3 * hidden, hidden, bias=False)


class Block(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.self_attn = Attention(hidden)
        self.mlp = Mlp(hidden)
        self.input_layernorm = nn.LayerNorm(hidden, bias=False)
        self.post_attention_layernorm = nn.LayerNorm(hidden, bias=False)


class Body(nn.Module):
    def __init__(self, hidden, vocabulary, blocks):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList([Block(hidden) for _ in range(blocks)])
        self.norm = nn.LayerNorm(hidden, bias=False)


class Model(nn.Module):
    def __init__(self, hidden, vocabulary, blocks, tied):
        super().__init__()
        self.model = Body(hidden, vocabulary, blocks)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight


MODELS = {
    "8_blocks": dict(hidden=64, vocabulary=500, blocks=8, tied=False),
    "8_blocks_tied": dict(hidden=64, vocabulary=500, blocks=8, tied=True),
    "8_blocks_huge_embedding": dict(hidden=64, vocabulary=12000, blocks=8, tied=False),
    "32_blocks": dict(hidden=128, vocabulary=4000, blocks=32, tied=False),
    "32_blocks_huge_embedding_tied": dict(hidden=128, vocabulary=20000, blocks=32, tied=True),
    "1_block_below_a_huge_embedding": dict(hidden=64, vocabulary=30000, blocks=1, tied=False),
}

# max_memory as shares of the model's bytes: accelerators, cpu
BUDGETS = [
    ([1.5], 4), ([1], 4), ([0.5], 4), ([0.4], 0.3),  # all fits; just fits; the rest on the CPU; and on disk
    ([0.8, 0.8], 4), ([0.6, 0.6], 4), ([0.3, 0.3], 4), ([0.25, 0.25], 0.25),
    ([2, 2, 2], 4), ([0.5, 0.5, 0.5], 4), ([0.2, 0.4, 0.8], 4), ([0.15, 0.3, 0.1], 0.2),
    ([0.01, 1], 4), ([0.01, 0.01], 0.01),  # a device too small for any unit; all are
]


def size(module):
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def answer(model, names, word, max_memory):
    """Runs of [device, units]."""
    budgets = dict(max_memory)
    if word != "sequential":
        budgets = get_balanced_memory(model, budgets, no_split_module_classes=["Block"],
                                      low_zero=word == "balanced_low_0")
    entries = infer_auto_device_map(model, budgets, no_split_module_classes=["Block"])
    runs = []
    for name in names:
        entry = max((e for e in entries if e == "" or (name + ".").startswith(e + ".")), key=len)
        device = entries[entry] if isinstance(entries[entry], str) else f"cuda:{entries[entry]}"
        if runs and runs[-1][0] == device:
            runs[-1][1] += 1
        else:
            runs.append([device, 1])
    return runs


def main(random_budgets):
    generator = random.Random(4)
    models, cases = {}, []
    for model_name, shape in MODELS.items():
        with init_empty_weights(include_buffers=True):
            model = Model(**shape).to(torch.float16)
        if shape["tied"]:
            model.lm_head.weight = model.model.embed_tokens.weight
        body, blocks = model.model, len(model.model.layers)
        facts = {"embedding": size(body.embed_tokens), "blocks": blocks, "block": size(body.layers[0]),
                 "norm": size(body.norm), "head": 0 if shape["tied"] else size(model.lm_head)}
        facts["modules"] = [name for name, module in body.layers[0].named_modules() if not list(module.children())]
        models[model_name] = facts
        names = ["model.embed_tokens"] + [f"model.layers.{i}" for i in range(blocks)] + ["model.norm", "lm_head"]
        total = size(model)
        budgets = BUDGETS + [([generator.random() ** 2 for _ in range(generator.randint(1, 4))], generator.random())
                             for _ in range(random_budgets)]
        for accelerators, cpu in budgets:
            max_memory = {i: int(share * total) for i, share in enumerate(accelerators)}
            max_memory["cpu"] = int(cpu * total)
            for word in WORDS:
                named = {key if isinstance(key, str) else f"cuda:{key}": n for key, n in max_memory.items()}
                cases.append({"model": model_name, "word": word, "max_memory": named,
                              "runs": answer(model, names, word, max_memory)})
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    lines = [f'  {json.dumps(name)}: {json.dumps(model)}' for name, model in models.items()]
    text = '{"models": {\n' + ",\n".join(lines) + '\n},\n"cases": [\n'
    text += ",\n".join("  " + json.dumps(case) for case in cases) + "\n]}\n"
    (folder / "device_maps.json").write_text(text)


if __name__ == "__main__":
    main(random_budgets=int(sys.argv[2]) if len(sys.argv) > 2 else 3)
