#!/usr/bin/env python3
"""Greedy continuations of token ids by transformers, in fp32, for some of the families beside this folder.

Every token comes from a pass of all tokens before it: with its cache, transformers 5.24 writes another text for mamba2
than its own full pass.

    tests/golden/texts/make.py        # writes texts.json; needs PyTorch and transformers 5.24
"""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
FAMILIES = [
    "bloom",
    "deepseek_v3",
    "falcon-7b",
    "falcon_h1",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "lfm2",
    "llama-bare",
    "mamba2",
    "mistral",
    "mixtral",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_next",
]
PROMPTS = [[3, 9, 33, 1, 27, 60, 12], [5, 64, 2, 2, 40]]
TOKENS = 16


def continuation(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    model.generation_config.eos_token_id = None  # which would end some early
    ids = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=TOKENS, pad_token_id=0, use_cache=False
    )
    return ids[0, len(prompt) :].tolist()


def main() -> None:
    texts = {}
    for family in FAMILIES:
        model = AutoModelForCausalLM.from_pretrained(HERE.parent / "families" / family, dtype=torch.float32).eval()
        with torch.no_grad():
            texts[family] = [continuation(model, prompt) for prompt in PROMPTS]
    lines = ",\n".join(f'  "{family}": {json.dumps(found)}' for family, found in texts.items())
    HERE.joinpath("texts.json").write_text(
        f'{{"prompts": {json.dumps(PROMPTS)}, "texts": {{\n{lines}\n}}}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    main()
