#!/usr/bin/env python3
"""Makes the golden models: tiny random Llamas as Hugging Face folders, each with the answers of transformers.

    python make.py            (needs torch, transformers >= 5, safetensors; rewrites every folder beside this file)

One folder per variant: config.json, the weights, and golden.safetensors with
    input_ids        [sequences, tokens] I32
    block.0, ...     [sequences * tokens, hidden] F32: the output of each block
    logits           [sequences * tokens, vocabulary] F32
    loss             [1] F32: mean cross entropy of each next token
computed in float32 with eager attention. Weights are scaled so that activations are of order one and attention is
sharp, so that a wrong angle, scale or bias moves the answers by far more than rounding does.

rope.json and rope.safetensors hold rows of the cosine and sine tables of rope kinds at the sizes of real models.
"""
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = Path(__file__).resolve().parent
TOKENS = 12

BASE = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=36, intermediate_size=52,
            num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, vocab_size=70,
            max_position_embeddings=64, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False,
            attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2, pretraining_tp=1)
# 3 heads of 16: eight frequencies, enough to fall on both sides of every threshold
WIDE = dict(num_attention_heads=3, num_key_value_heads=1, head_dim=16, num_hidden_layers=1)
OLD = dict(rope_theta=10000.0)

SHORT = [1.0, 1.05, 1.1, 1.3, 1.6, 2.0, 2.4, 3.0]
LONG = [1.0, 1.4, 2.1, 3.5, 5.0, 7.5, 9.0, 12.0]
LONGROPE = dict(rope_type="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=16)

VARIANTS = {
    "plain": dict(config=OLD, dtype=torch.float32),
    "tied": dict(config={**OLD, "tie_word_embeddings": True}),
    "biases": dict(config={**OLD, "attention_bias": True, "mlp_bias": True}),
    "head-dim": dict(config={**OLD, "head_dim": 10, "num_key_value_heads": 3}, dtype=torch.float16),
    "no-kv-heads": dict(config={"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
                                "num_key_value_heads": None, "num_attention_heads": 2}),
    "gelu": dict(config={**OLD, "hidden_act": "gelu"}),
    "gelu-tanh": dict(config={**OLD, "hidden_act": "gelu_pytorch_tanh"}),
    "relu": dict(config={**OLD, "hidden_act": "relu"}),
    "shards": dict(config=OLD, shards=3),
    "rope-linear-old": dict(config={**OLD, **WIDE, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    "rope-dynamic-new": dict(config={**WIDE, "max_position_embeddings": 8,
                                     "rope_parameters": {"rope_type": "dynamic", "factor": 2.2, "rope_theta": 700.0}}),
    "rope-dynamic-within": dict(config={**OLD, **WIDE, "rope_scaling": {"rope_type": "dynamic", "factor": 2.2}}),
    "rope-yarn-old": dict(config={**OLD, **WIDE, "rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4}}),
    "rope-yarn-new": dict(config={**WIDE, "rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4, "beta_slow": 0.5,
        "mscale": 1.3, "mscale_all_dim": 0.7, "truncate": False, "rope_theta": 100.0}}),
    "rope-llama3-old": dict(config={**WIDE, "rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}),
    "rope-llama3-new": dict(config={**WIDE, "rope_parameters": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_theta": 300.0}}),
    "rope-longrope-short": dict(config={**OLD, **WIDE, "rope_scaling": LONGROPE}, tokens=16),
    "rope-longrope-long": dict(config={**WIDE, "rope_parameters": {**LONGROPE, "rope_theta": 10000.0}}, tokens=17),
    "rope-longrope-outside": dict(config={**OLD, **WIDE, "original_max_position_embeddings": 10, "rope_scaling": {
        "type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 40}}),
}


def random_weights(config: LlamaConfig, generator: torch.Generator) -> dict[str, torch.Tensor]:
    def normal(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    weights = {"model.embed_tokens.weight": normal(config.vocab_size, hidden)}
    for block in range(config.num_hidden_layers):
        prefix = f"model.layers.{block}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[prefix + norm + ".weight"] = 1 + normal(hidden, scale=0.2)
        for name, rows, columns, bias in (
                ("self_attn.q_proj", q, hidden, config.attention_bias),
                ("self_attn.k_proj", kv, hidden, config.attention_bias),
                ("self_attn.v_proj", kv, hidden, config.attention_bias),
                ("self_attn.o_proj", hidden, q, config.attention_bias),
                ("mlp.gate_proj", inner, hidden, config.mlp_bias),
                ("mlp.up_proj", inner, hidden, config.mlp_bias),
                ("mlp.down_proj", hidden, inner, config.mlp_bias)):
            weights[prefix + name + ".weight"] = normal(rows, columns, scale=1.3 * columns**-0.5)
            if bias:
                weights[prefix + name + ".bias"] = normal(rows, scale=0.4)
    weights["model.norm.weight"] = 1 + normal(hidden, scale=0.2)
    if not config.tie_word_embeddings:
        weights["lm_head.weight"] = normal(config.vocab_size, hidden, scale=2 * hidden**-0.5)
    return weights


def save_weights(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def answers(folder: Path, config: LlamaConfig, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
    model.eval()
    seen = {}
    for index, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda module, inputs, output, i=index: seen.update({f"block.{i}": output}))
    with torch.no_grad():
        output = model(input_ids=input_ids, labels=input_ids)
    seen["logits"] = output.logits
    golden = {name: tensor.reshape(-1, tensor.shape[-1]).float().contiguous().clone() for name, tensor in seen.items()}
    golden["input_ids"] = input_ids.to(torch.int32)
    golden["loss"] = output.loss.reshape(1).float()
    assert all(torch.isfinite(tensor.float()).all() for tensor in golden.values())
    return golden


def make_model(name: str, config: dict, dtype=torch.bfloat16, shards=1, tokens=TOKENS) -> None:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    merged = {key: value for key, value in {**BASE, **config}.items() if value is not None}
    merged["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(merged, indent=1) + "\n")
    parsed = LlamaConfig.from_pretrained(folder)
    generator = torch.Generator().manual_seed(sum(name.encode()))
    weights = {key: value.to(dtype) for key, value in random_weights(parsed, generator).items()}
    save_weights(folder, weights, shards)
    input_ids = torch.randint(0, parsed.vocab_size, (2, tokens), generator=generator)
    golden = answers(folder, parsed, input_ids)
    save_file(golden, folder / "golden.safetensors")
    print(f"{name:24} loss {golden['loss'].item():.4f}  "
          + "  ".join(f"{key} rms {golden[key].square().mean().sqrt():.2f}" for key in ("block.0", "logits")))


# Real sizes: name -> (config, length, positions of the rows to keep)
REAL = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=4096, intermediate_size=11008,
            num_hidden_layers=32, num_attention_heads=32, vocab_size=32000, rms_norm_eps=1e-5)
FACTORS = [1.0 + 0.02 * i for i in range(48)], [1.0 + 0.35 * i + 0.01 * i * i for i in range(48)]
ROWS = [0, 1, 2, 3, 17, 100, 511, 1000, 2047]
ROPES = {
    "default": (dict(max_position_embeddings=2048, rope_theta=10000.0), 2048, ROWS),
    "partial-ignored": (dict(max_position_embeddings=2048, partial_rotary_factor=0.5, head_dim=64), 64, [0, 1, 63]),
    "llama3.1": (dict(max_position_embeddings=131072, rope_theta=500000.0, rope_scaling=dict(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192,
        rope_type="llama3")), 8192, ROWS + [8191]),
    "linear": (dict(max_position_embeddings=8192, rope_scaling=dict(type="linear", factor=4.0)), 4096, ROWS),
    "dynamic-within": (dict(max_position_embeddings=4096, rope_scaling=dict(type="dynamic", factor=2.0)), 4096, ROWS),
    "dynamic-beyond": (dict(max_position_embeddings=2048, rope_scaling=dict(type="dynamic", factor=2.3)), 5000,
                       ROWS + [4999]),
    "yarn-128k": (dict(max_position_embeddings=131072, rope_scaling=dict(
        type="yarn", factor=32.0, original_max_position_embeddings=4096)), 4096, ROWS),
    "yarn-attention-factor": (dict(max_position_embeddings=32768, rope_parameters=dict(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=4096, attention_factor=0.9, rope_theta=1e6,
        beta_fast=16, beta_slow=2)), 2048, ROWS),
    "yarn-untruncated": (dict(max_position_embeddings=32768, head_dim=64, rope_parameters=dict(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=4096, truncate=False, mscale=0.707,
        mscale_all_dim=1.0, rope_theta=150000.0)), 2048, ROWS),
    "yarn-no-original": (dict(max_position_embeddings=4096, rope_scaling=dict(type="yarn", factor=2.0)), 2048, ROWS),
    "yarn-ramp-beyond-the-head": (dict(max_position_embeddings=8192, rope_parameters=dict(
        rope_type="yarn", factor=2.0, original_max_position_embeddings=4096, rope_theta=10.0)), 2048, ROWS),
    "yarn-no-ramp": (dict(max_position_embeddings=24, rope_scaling=dict(
        type="yarn", factor=4.0, original_max_position_embeddings=6)), 24, [0, 1, 5, 23]),
    "longrope-short": (dict(max_position_embeddings=131072, hidden_size=3072, rope_scaling=dict(
        type="longrope", short_factor=FACTORS[0], long_factor=FACTORS[1]),
        original_max_position_embeddings=4096), 4096, ROWS),
    "longrope-long": (dict(max_position_embeddings=131072, hidden_size=3072, rope_scaling=dict(
        type="longrope", short_factor=FACTORS[0], long_factor=FACTORS[1]),
        original_max_position_embeddings=4096), 4097, ROWS + [4096]),
    "longrope-factor": (dict(max_position_embeddings=131072, hidden_size=3072, rope_parameters=dict(
        rope_type="longrope", short_factor=FACTORS[0], long_factor=FACTORS[1], factor=16.0, rope_theta=10000.0,
        original_max_position_embeddings=2048)), 2048, ROWS),
}


def make_ropes() -> None:
    cases, tables = [], {}
    for name, (config, length, positions) in ROPES.items():
        merged = {**REAL, **config}
        cases.append(dict(name=name, config=merged, length=length, positions=positions))
        parsed = LlamaConfig(**json.loads(json.dumps(merged)))
        cos, sin = LlamaRotaryEmbedding(parsed)(torch.zeros(1), torch.arange(length)[None])
        half = cos.shape[-1] // 2
        for key, table in (("cos", cos), ("sin", sin)):
            tables[f"{name}.{key}"] = table[0, positions, :half].contiguous()
    (HERE / "rope.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    save_file(tables, HERE / "rope.safetensors")


if __name__ == "__main__":
    for variant, arguments in VARIANTS.items():
        make_model(variant, **arguments)
    make_ropes()
