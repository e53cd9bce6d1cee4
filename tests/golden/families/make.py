#!/usr/bin/env python3
"""Makes the golden families: for every row of the table of architectures a tiny random checkpoint, with the answers of
transformers.

    python make.py [case ...]      (needs torch, transformers >= 5, safetensors; rewrites those folders, or all)

The files are those of ../models/make.py. config.json is spelled as in the releases of the family, tensors have the
names of its checkpoints, sizes are odd ones: the heads together are wider than the hidden states where the family lets
them, three heads share one of keys, and there are blocks enough for every alternation. Each checkpoint is read back by
transformers before it answers, in float32.

Families that transformers does not have are computed by one that does, under another name: `as_native` says which, and
`rename` how its tensors are spelled.
"""
import json
import math
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

HERE = Path(__file__).resolve().parent
TOKENS, VOCABULARY = 14, 66

# Heads of 8, wider together than the hidden states.
WIDE = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
            head_dim=8, vocab_size=VOCABULARY, max_position_embeddings=64)
EVEN = {**{key: value for key, value in WIDE.items() if key != "head_dim"}, "hidden_size": 48}
ALONE = {key: value for key, value in EVEN.items() if key != "num_key_value_heads"}
GPT = dict(n_embd=24, n_layer=2, n_head=3, n_positions=64, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2)
FALCON = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=6, vocab_size=VOCABULARY, bos_token_id=1,
              eos_token_id=2)
LATENT = dict(hidden_size=24, intermediate_size=40, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=8,
              v_head_dim=8, n_routed_experts=8, num_experts_per_tok=3, first_k_dense_replace=1,
              vocab_size=VOCABULARY, max_position_embeddings=64)
YARN = dict(type="yarn", factor=4.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
            original_max_position_embeddings=16)
LONGROPE = dict(type="longrope", short_factor=[1.0, 1.2, 1.5], long_factor=[1.0, 2.0, 4.0])
GRANITE = dict(embedding_multiplier=3.0, attention_multiplier=0.3, residual_multiplier=0.7, logits_scaling=2.0)
LFM2 = {**EVEN, "num_hidden_layers": 3, "hidden_size": 24}
DELTA = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=8,
             linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=12,
             linear_conv_kernel_dim=4, vocab_size=VOCABULARY, max_position_embeddings=64)
QWEN3_5_TOWER = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=24, patch_size=2,
                     spatial_merge_size=1, temporal_patch_size=1, num_position_embeddings=4)
SOME = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
LFM3 = {**WIDE, **SOME, "num_attention_heads": 8, "num_key_value_heads": 4}
DUAL = {**EVEN, **SOME, "num_hidden_layers": 3, "hidden_size": 24, "mamba_n_heads": 8, "mamba_d_head": "auto",
        "mamba_n_groups": 1, "mamba_d_state": 12, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 8}
NEMOTRON_H = dict({key: value for key, value in WIDE.items() if key != "num_hidden_layers"}, **SOME, mamba_num_heads=8,
                  mamba_head_dim=6, n_groups=2, ssm_state_size=12, conv_kernel=4, expand=2, chunk_size=8,
                  time_step_min=0.3, time_step_max=0.4, mlp_hidden_act="relu2", mamba_hidden_act="silu")
JAMBA = {**EVEN, **SOME, "num_hidden_layers": 4, "hidden_size": 24, "attn_layer_period": 4, "attn_layer_offset": 1,
         "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4, "num_experts_per_tok": 2,
         "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "use_mamba_kernels": False}
SCAN = dict(hidden_size=24, num_hidden_layers=2, state_size=8, expand=2, conv_kernel=4, time_step_rank=3,
            vocab_size=VOCABULARY, **SOME)


def grouped_qkv(q, k, v, kv_heads):
    """Group after group of the query heads that share a key head, then its key and value."""
    q, k, v = (x.reshape(kv_heads, -1, x.shape[-1]) for x in (q, k, v))
    return torch.cat([q, k, v], dim=1).reshape(-1, q.shape[-1])


def as_internlm2(weights):
    names = {"embed_tokens": "tok_embeddings", "lm_head": "output", "self_attn.o_proj": "attention.wo",
             "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
             "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
    renamed = fuse(weights, "attention.wqkv", lambda q, k, v: grouped_qkv(q, k, v, 2))
    for old, new in names.items():
        renamed = {name.replace(old, new): tensor for name, tensor in renamed.items()}
    return renamed


def fuse(weights, name, join):
    fused = {}
    for key, tensor in weights.items():
        if "self_attn.q_proj" in key:
            parts = [weights[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            fused[key.replace("self_attn.q_proj", name)] = join(*parts)
        elif "self_attn.k_proj" not in key and "self_attn.v_proj" not in key:
            fused[key] = tensor
    return fused


def as_baichuan(weights):
    return fuse(weights, "self_attn.W_pack", lambda *parts: torch.cat(parts))


def as_baichuan2(weights):
    """Its head is scaled to rows of length one when it runs: the native one has such rows, and what is stored not."""
    lengths = torch.linspace(0.5, 2, VOCABULARY)[:, None]
    return as_baichuan(weights) | {"lm_head.weight": weights["lm_head.weight"] * lengths}


def without_prefix(prefix):
    return lambda weights: {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def without(*towers):
    """Leaves out towers that cannot be small."""
    return lambda weights: {name: tensor for name, tensor in weights.items() if not any(part in name for part in towers)}


def with_prefix(prefix, *others):
    def rename(weights):
        towers = {name: torch.randn(3, 5) for name in others}
        return {prefix + name: tensor for name, tensor in weights.items()} | towers
    return rename


def as_new_nested(weights):
    """model.x becomes model.language_model.x, as transformers 5 writes models with a vision tower."""
    return {("model.language_model." + name.removeprefix("model.") if name.startswith("model.") else name): tensor
            for name, tensor in weights.items()} | {"model.vision_tower.embeddings.weight": torch.randn(3, 5)}


def old_gpt2(weights):
    """As on the hub: no prefix, and the mask beside the weights."""
    names = without_prefix("transformer.")(weights)
    return names | {f"h.{block}.attn.bias": torch.tril(torch.ones(1, 1, 64, 64)) for block in range(2)}


def with_head(weights):
    return weights | {"lm_head.weight": weights["transformer.word_embeddings.weight"].clone()}


def with_mtp(weights):
    """With a tensor of multi-token prediction, which transformers does not compute."""
    return weights | {"mtp.fc.weight": torch.randn(3, 5)}


def as_released_olmo_hybrid(weights):
    """transformers renames the norms of all blocks, and cuts the convolution into parts of one size."""
    stored = {}
    for name, tensor in weights.items():
        name = name.replace("attention_layer_norm", "input_layernorm")
        stored[name.replace("feedforward_layer_norm", "post_attention_layernorm")] = tensor
    for name in [name for name in stored if "q_conv1d" in name]:
        names = [name.replace("q_conv1d", part + "_conv1d") for part in "qkv"]
        keys, values = (stored[name.replace("conv1d", "proj").replace("q_", part)].shape[0] for part in ("k_", "v_"))
        parts = torch.cat([stored[part] for part in names]).split([keys, keys, values])
        stored |= dict(zip(names, parts))
    return stored


def narrow(sizes, dim, change_names=lambda weights: weights):
    """Blocks of (heads, heads of keys, width of the MLP), each as large as all where transformers computes them: its
    heads and features beyond add nothing, and heads of queries that share a head of keys have equal ones."""
    def shrink(model):
        for block, (heads, key_heads, width) in zip(model.model.layers, sizes):
            block.self_attn.o_proj.weight.data[:, heads * dim:] = 0
            block.mlp.down_proj.weight.data[:, width:] = 0
            for projection in (block.self_attn.k_proj, block.self_attn.v_proj):
                of_heads = projection.weight.data.view(-1, dim, projection.weight.shape[1])
                for head in range(heads):
                    of_heads[head] = of_heads[head - head % (heads // key_heads)]

    def rename(weights):
        for block, (heads, key_heads, width) in enumerate(sizes):
            prefix = f"model.layers.{block}."
            own = {name: weights.pop(prefix + name) for name in
                   [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]}
            own = {name: tensor for name, tensor in own.items()
                   if (heads or not name.startswith(("self_attn", "input"))) and
                   (width or not name.startswith(("mlp", "post")))}
            for name, tensor in own.items():
                if name.endswith(("k_proj.weight", "v_proj.weight")):
                    of_heads = tensor.view(-1, dim, tensor.shape[1])[:heads:heads // key_heads]
                    tensor = of_heads.reshape(key_heads * dim, -1)
                rows, columns = {"q_proj.weight": (heads * dim, None), "o_proj.weight": (None, heads * dim),
                                 "gate_proj.weight": (width, None), "up_proj.weight": (width, None),
                                 "down_proj.weight": (None, width)}.get(name.split(".", 1)[1], (None, None))
                own[name] = tensor[:rows] if columns is None else tensor[:, :columns]
            weights |= {prefix + name: tensor for name, tensor in own.items()}
        return weights
    idle = [block for block, (heads, _, width) in enumerate(sizes) if not heads and not width]
    return dict(change=shrink, rename=lambda weights: change_names(rename(weights)), idle=idle)


def as_openelm(weights):
    stored = {}
    for name, tensor in fuse(weights, "attn.qkv_proj", lambda *parts: torch.cat(parts)).items():
        if "up_proj" in name:
            continue
        if "gate_proj" in name:
            tensor = torch.cat([tensor, weights[name.replace("gate_proj", "up_proj")]])
        for old, new in {"model.": "transformer.", "embed_tokens": "token_embeddings", "self_attn": "attn", "o_proj": "out_proj",
                         "mlp.gate_proj": "ffn.proj_1", "mlp.down_proj": "ffn.proj_2", "input_layernorm": "attn_norm",
                         "post_attention_layernorm": "ffn_norm"}.items():
            name = name.replace(old, new)
        stored[name] = tensor
    return stored


def nested(model_type):
    return lambda config: {"model_type": model_type, "text_config": config, "vision_config": {"hidden_size": 5}}


def inside(model_type, **vision):
    """A language model inside a multimodal one of transformers, whose tower is as small as it can be."""
    return dict(whole=lambda config: {"model_type": model_type, "text_config": config, "vision_config": vision})


def alibi_inputs(heads, tokens):
    """Llama without rope and with ALiBi: all tokens at position 0, and a mask that says where they are."""
    slopes = torch.tensor([2.0 ** (-8 * i / 4) for i in range(1, 5)] + [2.0 ** (-4 * i / 4) for i in (1, 3)])[:heads]
    distance = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]
    mask = slopes[:, None, None] * distance.float()
    mask = mask.masked_fill(distance > 0, torch.finfo(torch.float32).min)
    return dict(attention_mask=mask[None].expand(2, -1, -1, -1), position_ids=torch.zeros(2, tokens, dtype=torch.long))


# model_type, config.json, and what is special about the case.
CASES = {
    "llama-bare": ("llama", dict(EVEN, rope_theta=500.0), dict(rename=without_prefix("model."))),
    "llama-doubled": ("llama", dict(EVEN, rope_theta=500.0), dict(rename=with_prefix("model."))),
    "mistral": ("mistral", dict(WIDE, sliding_window=5, rope_theta=1000.0), {}),
    "mistral-all": ("mistral", dict(WIDE, sliding_window=None, rope_theta=1000.0), {}),
    "ministral": ("ministral", dict(WIDE, sliding_window=5, layer_types=["full_attention", "sliding_attention"]), {}),
    "ministral3": ("ministral3", dict(WIDE, rope_parameters=dict(
        rope_type="yarn", rope_theta=1000.0, factor=4.0, original_max_position_embeddings=5, beta_fast=32.0,
        beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)), {}),
    "qwen2": ("qwen2", dict(EVEN, use_sliding_window=False, sliding_window=5, max_window_layers=1, rope_theta=1e6,
                            tie_word_embeddings=True), {}),
    "qwen2-window": ("qwen2", dict(EVEN, use_sliding_window=True, sliding_window=5, max_window_layers=1), {}),
    "qwen3": ("qwen3", dict(WIDE, rope_theta=1e6, attention_bias=False, tie_word_embeddings=True), {}),
    "gemma": ("gemma", dict(WIDE, hidden_act="gelu_pytorch_tanh", hidden_activation=None), {}),
    "gemma-old": ("gemma", dict(WIDE, hidden_act="gelu"), {}),  # which is not what it says
    "gemma2": ("gemma2", dict(WIDE, sliding_window=5, query_pre_attn_scalar=10, attn_logit_softcapping=5.0,
                              final_logit_softcapping=4.0, hidden_act="gelu_pytorch_tanh",
                              hidden_activation="gelu_pytorch_tanh"), {}),
    "gemma3_text": ("gemma3_text", dict(WIDE, num_hidden_layers=6, sliding_window=5, sliding_window_pattern=6,
                                        query_pre_attn_scalar=10, rope_theta=1e6, rope_local_base_freq=10000.0,
                                        hidden_activation="gelu_pytorch_tanh"), {}),
    "gemma3": ("gemma3_text", dict(WIDE, sliding_window=5, query_pre_attn_scalar=10, model_type="gemma3_text",
                                   rope_scaling=dict(factor=8.0, rope_type="linear")),
               dict(rename=with_prefix("language_model.", "vision_tower.embeddings.weight",
                                       "multi_modal_projector.weight"), wrap=nested("gemma3"))),
    "gemma3-new": ("gemma3_text", dict(WIDE, sliding_window=5, query_pre_attn_scalar=10, model_type="gemma3_text"),
                   dict(rename=as_new_nested, wrap=nested("gemma3"))),
    "phi": ("phi", dict(EVEN, partial_rotary_factor=0.5, hidden_act="gelu_new", qk_layernorm=False), {}),
    "phi-qk-norm": ("phi", dict(EVEN, partial_rotary_factor=0.5, qk_layernorm=True), {}),
    "phi3": ("phi3", dict(EVEN, sliding_window=5, rope_theta=10000.0, **SOME), {}),
    "phi3-longrope": ("phi3", dict(EVEN, partial_rotary_factor=0.75, original_max_position_embeddings=10,
                                   rope_scaling=LONGROPE, sliding_window=None, tie_word_embeddings=True, **SOME), {}),
    "gpt2": ("gpt2", dict(GPT, n_ctx=64), dict(rename=old_gpt2)),
    "gpt2-scaled": ("gpt2", dict(GPT, n_inner=40, scale_attn_by_inverse_layer_idx=True), {}),
    "gpt_neo": ("gpt_neo", dict(hidden_size=24, num_layers=2, num_heads=3, vocab_size=VOCABULARY, window_size=5,
                                max_position_embeddings=64, attention_types=[[["global", "local"], 1]],
                                attention_layers=["global", "local"], intermediate_size=None), {}),
    "gptj": ("gptj", dict(GPT, rotary_dim=4, n_inner=None, tie_word_embeddings=False), {}),
    "gpt_neox": ("gpt_neox", dict(ALONE, rotary_pct=0.5, rotary_emb_base=1000, use_parallel_residual=True), {}),
    "gpt_neox-sequential": ("gpt_neox", dict(ALONE, rotary_pct=0.25, use_parallel_residual=False), {}),
    "opt": ("opt", dict(hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=3, vocab_size=VOCABULARY,
                        max_position_embeddings=64, word_embed_proj_dim=24, do_layer_norm_before=True), {}),
    "opt-old": ("opt", dict(hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=3,
                            vocab_size=VOCABULARY, max_position_embeddings=64, word_embed_proj_dim=24),
                dict(rename=without_prefix("model."))),
    "bloom": ("bloom", dict(hidden_size=24, n_layer=2, n_head=6, vocab_size=VOCABULARY), {}),
    "bloom-old": ("bloom", dict(n_embed=24, n_layer=2, num_attention_heads=3, vocab_size=VOCABULARY),
                  dict(rename=without_prefix("transformer."))),
    "falcon-7b": ("falcon", dict(FALCON, multi_query=True, parallel_attn=True, new_decoder_architecture=False,
                                 alibi=False, bias=False), dict(rename=with_head)),
    "falcon-40b": ("falcon", dict(FALCON, num_kv_heads=2, new_decoder_architecture=True, multi_query=True), {}),
    "falcon-11b": ("falcon", dict(FALCON, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1,
                                  ffn_hidden_size=40, rope_theta=500042.0), {}),
    "falcon-rw": ("falcon", dict(FALCON, multi_query=False, parallel_attn=False, alibi=True, bias=True),
                  dict(attention="sdpa")),  # eager adds the bias of ALiBi twice
    "falcon-sequential": ("falcon", dict(FALCON, multi_query=False, parallel_attn=False, alibi=False, bias=True), {}),
    "mpt": ("mpt", dict(d_model=24, n_heads=6, n_layers=2, vocab_size=VOCABULARY, max_seq_len=64, expansion_ratio=4,
                        no_bias=True, attn_config=dict(alibi=True, attn_type="multihead_attention", clip_qkv=2.0)), {}),
    "stablelm": ("stablelm", dict(EVEN, use_qkv_bias=True, partial_rotary_factor=0.25), {}),
    "stablelm-parallel": ("stablelm", dict(EVEN, use_parallel_residual=True, qk_layernorm=True), {}),
    "starcoder2": ("starcoder2", dict(EVEN, sliding_window=5, use_bias=True, hidden_act="gelu_pytorch_tanh"), {}),
    "gpt_bigcode": ("gpt_bigcode", dict(GPT, n_inner=40, multi_query=True), {}),
    "gpt_bigcode-heads": ("gpt_bigcode", dict(GPT, multi_query=False), {}),
    "codegen": ("codegen", dict(GPT, n_ctx=64, rotary_dim=4, n_head=4, n_embd=32), {}),
    "cohere": ("cohere", dict(EVEN, logit_scale=0.25, rope_theta=10000.0), {}),
    "cohere-qk-norm": ("cohere", dict(EVEN, logit_scale=0.25, use_qk_norm=True), {}),
    "cohere2": ("cohere2", dict(WIDE, num_hidden_layers=4, sliding_window=5, sliding_window_pattern=4,
                                logit_scale=0.25), {}),
    "olmo": ("olmo", dict(EVEN, clip_qkv=None), {}),
    "olmo-clipped": ("olmo", dict(EVEN, clip_qkv=1.0), {}),
    "olmo2": ("olmo2", EVEN, {}),
    "olmo3": ("olmo3", dict(EVEN, num_hidden_layers=4, sliding_window=5, rope_theta=500000.0, rope_scaling=dict(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=8, beta_fast=32.0, beta_slow=1.0,
        attention_factor=1.2)), {}),
    "granite": ("granite", dict(EVEN, **GRANITE, attention_bias=True, mlp_bias=True), {}),
    "glm": ("glm", dict(WIDE, partial_rotary_factor=0.5, attention_bias=True, **SOME), {}),
    "glm4": ("glm4", dict(WIDE, partial_rotary_factor=0.5, attention_bias=True, **SOME), {}),
    "nemotron": ("nemotron", dict(WIDE, partial_rotary_factor=0.5, hidden_act="relu2"), {}),
    "exaone4": ("exaone4", dict(WIDE, num_hidden_layers=4, sliding_window=5, sliding_window_pattern="LLLG",
                                layer_types=["sliding_attention"] * 3 + ["full_attention"]), {}),
    "exaone4-all": ("exaone4", dict(WIDE, sliding_window=None, sliding_window_pattern=None,
                                    layer_types=["full_attention"] * 2, tie_word_embeddings=True), {}),
    "smollm3": ("smollm3", dict(EVEN, num_hidden_layers=4, use_sliding_window=False, no_rope_layers=[1, 0, 1, 0],
                                **SOME), {}),
    "helium": ("helium", dict(EVEN, num_attention_heads=6, head_dim=8, rope_theta=1000.0, **SOME), {}),
    "internlm2": ("internlm2", dict(EVEN, bias=False, rope_theta=1e6), dict(as_native=("llama", {}), rename=as_internlm2)),
    "internlm3": ("internlm3", dict(WIDE, qkv_bias=True, bias=True, rope_theta=5e4, rope_scaling=dict(
        rope_type="dynamic", factor=6.0)),
        dict(as_native=("llama", dict(attention_bias=True, mlp_bias=True)))),
    "baichuan-7b": ("baichuan", ALONE, dict(as_native=("llama", {}), rename=as_baichuan)),
    "baichuan-13b": ("baichuan", {**{k: v for k, v in ALONE.items() if k != "max_position_embeddings"},
                                  "model_max_length": 64},
                     dict(as_native=("llama", {}), rename=as_baichuan, inputs=alibi_inputs(6, TOKENS))),
    "baichuan2": ("baichuan", dict(ALONE, z_loss_weight=0), dict(as_native=("llama", {}), rename=as_baichuan2,
                                                                 dtype=torch.float32)),
    "minicpm": ("minicpm", dict(EVEN, scale_emb=3, scale_depth=1.4, dim_model_base=16), dict(
        as_native=("granite", dict(embedding_multiplier=3.0, residual_multiplier=1.4 / math.sqrt(2),
                                   logits_scaling=48 / 16, attention_multiplier=8**-0.5, tie_word_embeddings=True)))),
    "ernie4_5": ("ernie4_5", dict(WIDE, use_bias=True, rope_theta=500000.0), {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", dict(WIDE, rope_scaling=dict(type="dynamic", alpha=50.0, factor=1.0)), {}),
    "seed_oss": ("seed_oss", dict(WIDE, attention_bias=True, attention_out_bias=False), {}),
    "arcee": ("arcee", dict(WIDE, hidden_act="relu2"), {}),
    "mixtral": ("mixtral", dict(EVEN, num_local_experts=4, num_experts_per_tok=2, sliding_window=None,
                                intermediate_size=16), {}),
    "qwen2_moe": ("qwen2_moe", dict(EVEN, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16,
                                    shared_expert_intermediate_size=24, mlp_only_layers=[1]), {}),
    "qwen3_moe": ("qwen3_moe", dict(WIDE, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16,
                                    norm_topk_prob=True, decoder_sparse_step=2), {}),
    "olmoe": ("olmoe", dict(EVEN, num_experts=5, num_experts_per_tok=2, intermediate_size=16), {}),
    "olmoe-clipped": ("olmoe", dict(EVEN, num_experts=4, num_experts_per_tok=2, intermediate_size=16, clip_qkv=0.8), {}),
    "phimoe-longrope": ("phimoe", dict(
        EVEN, num_local_experts=4, num_experts_per_tok=2, intermediate_size=16, router_jitter_noise=0.2,
        original_max_position_embeddings=10, rope_scaling=dict(
            type="longrope", short_factor=[1.0, 1.1, 1.3, 2.5], long_factor=[1.1, 3.0, 7.0, 19.0], short_mscale=1.1,
            long_mscale=1.24, original_max_position_embeddings=10)), {}),
    "phimoe": ("phimoe", dict(EVEN, num_local_experts=5, num_experts_per_tok=2, intermediate_size=16,
                              attention_bias=True, lm_head_bias=True), {}),
    "granitemoe": ("granitemoe", dict(EVEN, num_local_experts=5, num_experts_per_tok=2, intermediate_size=16,
                                      **GRANITE), {}),
    "granitemoeshared": ("granitemoeshared", dict(EVEN, num_local_experts=4, num_experts_per_tok=2,
                                                  intermediate_size=16, shared_intermediate_size=24, **GRANITE), {}),
    "deepseek_v2": ("deepseek_v2", dict(LATENT, n_shared_experts=2, n_group=4, topk_group=2, routed_scaling_factor=2.0,
                                        topk_method="group_limited_greedy", norm_topk_prob=False), {}),
    "deepseek_v2-lite": ("deepseek_v2", dict(LATENT, q_lora_rank=None, n_shared_experts=2, n_group=1, topk_group=1,
                                             topk_method="greedy", norm_topk_prob=False, rope_scaling=YARN), {}),
    "deepseek_v3": ("deepseek_v3", dict(LATENT, n_shared_experts=1, n_group=4, topk_group=2, norm_topk_prob=True,
                                        scoring_func="sigmoid", routed_scaling_factor=2.5, rope_scaling=YARN), {}),
    "glm4_moe": ("glm4_moe", dict(WIDE, moe_intermediate_size=16, n_shared_experts=1, n_routed_experts=6, n_group=1,
                                  topk_group=1, num_experts_per_tok=3, first_k_dense_replace=1, use_qk_norm=True,
                                  routed_scaling_factor=1.5, attention_bias=True, partial_rotary_factor=0.5), {}),
    "dots1": ("dots1", dict(WIDE, moe_intermediate_size=16, n_shared_experts=1, n_routed_experts=8, n_group=2,
                            topk_group=1, num_experts_per_tok=3, first_k_dense_replace=1, routed_scaling_factor=1.5,
                            norm_topk_prob=True), {}),
    "ernie4_5_moe": ("ernie4_5_moe", dict(EVEN, moe_intermediate_size=16, moe_num_shared_experts=2, moe_num_experts=6,
                                          moe_k=2, moe_layer_start_index=1, moe_layer_interval=1), {}),
    "gpt_oss": ("gpt_oss", dict(WIDE, intermediate_size=16, num_local_experts=4, num_experts_per_tok=2,
                                sliding_window=5, rope_theta=150000.0, rope_scaling=dict(
                                    rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                                    original_max_position_embeddings=16), **SOME), {}),
    "llama4_text": ("llama4_text", dict(WIDE, num_hidden_layers=4, intermediate_size=16, intermediate_size_mlp=40,
                                        num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=2,
                                        attention_chunk_size=6, floor_scale=4, attn_scale=0.3, use_qk_norm=True,
                                        **SOME), {}),
    "llama4": ("llama4_text", dict(WIDE, intermediate_size=16, intermediate_size_mlp=40, num_local_experts=4,
                                   num_experts_per_tok=1, interleave_moe_layer_step=1, model_type="llama4_text",
                                   use_qk_norm=False, **SOME),
               dict(rename=with_prefix("language_model.", "vision_model.embeddings.weight"), wrap=nested("llama4"))),
}
EYES = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=24, patch_size=2)
MROPE = dict(type="mrope", mrope_section=[1, 1, 2])
EXPERTS = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16)
GLM_MOE = dict(moe_intermediate_size=16, n_shared_experts=1, n_routed_experts=6, n_group=1, topk_group=1,
               num_experts_per_tok=3, first_k_dense_replace=1, routed_scaling_factor=1.5)
MIXTRAL = dict(EVEN, num_local_experts=4, num_experts_per_tok=2, sliding_window=None, intermediate_size=16)
CASES |= {
    # As released: one flat config, and the tower beside the language model.
    "qwen2_vl": ("qwen2_vl", dict(EVEN, rope_scaling=MROPE, use_sliding_window=False, sliding_window=5,
                                  max_window_layers=1, tie_word_embeddings=True,
                                  vision_config=dict(depth=1, embed_dim=8, hidden_size=48, num_heads=2)), dict(whole=dict)),
    "qwen2_5_vl": ("qwen2_5_vl_text", dict(EVEN, rope_scaling=MROPE),
                   inside("qwen2_5_vl", **{**EYES, "out_hidden_size": 48}, fullatt_block_indexes=[0])),
    "qwen3_vl": ("qwen3_vl_text", dict(WIDE, rope_theta=5e6, rope_scaling=dict(
        mrope_interleaved=True, mrope_section=[2, 1, 1], rope_type="default")),
        inside("qwen3_vl", **EYES, deepstack_visual_indexes=[0])),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", dict(WIDE, **EXPERTS, mlp_only_layers=[], decoder_sparse_step=1, rope_scaling=dict(
        mrope_interleaved=True, mrope_section=[2, 1, 1], rope_type="default")),
        inside("qwen3_vl_moe", **EYES, deepstack_visual_indexes=[0])),
    "glm4v": ("glm4v_text", dict(EVEN, partial_rotary_factor=0.5, **SOME, rope_scaling=dict(
        rope_type="default", mrope_section=[1, 0, 1])),
        inside("glm4v", **{**EYES, "out_hidden_size": 48})),
    "glm4v_moe": ("glm4v_moe_text", dict(WIDE, **GLM_MOE, partial_rotary_factor=0.5, attention_bias=True,
                                         rope_scaling=dict(rope_type="default", mrope_section=[1, 0, 1])),
                  inside("glm4v_moe", **EYES)),
    "ernie4_5_vl_moe": ("ernie4_5_vl_moe_text", dict(
        EVEN, moe_intermediate_size=[16, 8], moe_num_shared_experts=2, moe_num_experts=6, moe_k=2,
        mlp_layer_types=["dense", "sparse"], rope_parameters=dict(rope_type="default", rope_theta=5e5,
                                                                  mrope_section=[1, 1, 2])),
        inside("ernie4_5_vl_moe", depth=1, hidden_size=8, intermediate_size=8, num_heads=2, patch_size=2,
               spatial_merge_size=1)),
    "smolvlm": ("llama", dict(EVEN, rope_theta=5e3), dict(
        inside("smolvlm", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8,
               patch_size=2))),
    "idefics3": ("llama", dict(EVEN, rope_theta=5e3), dict(
        inside("idefics3", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8,
               patch_size=2))),
    "internvl_chat": ("qwen2", dict(EVEN, rope_theta=1e6, model_type="qwen2"), dict(
        rename=with_prefix("language_model.", "vision_model.embeddings.weight"),
        wrap=lambda config: {"model_type": "internvl_chat", "llm_config": config, "vision_config": {"hidden_size": 5}})),
    "gpt-sw3": ("gpt-sw3", dict(GPT, n_inner=40), dict(as_native=("gpt2", {}))),
    "iquestcoder": ("iquestcoder", dict(WIDE, rope_theta=5e5, attention_bias=False, mlp_bias=False), {}),
    "cwm": ("cwm", dict(WIDE, num_hidden_layers=4, sliding_window=5, layer_types=["full_attention"] + ["sliding_attention"] * 3,
                        rope_scaling=dict(rope_type="llama3", factor=16.0, high_freq_factor=4.0, low_freq_factor=1.0,
                                          original_max_position_embeddings=8, rope_theta=1e6)), {}),
    "exaone": ("exaone", dict(EVEN, activation_function="silu", layer_norm_epsilon=1e-5), {}),
    "mellum": ("mellum", dict(WIDE, **EXPERTS, norm_topk_prob=True, sliding_window=5,
                              layer_types=["full_attention", "sliding_attention"], mlp_layer_types=["sparse", "dense"],
                              rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=5e5),
                                                   sliding_attention=dict(rope_type="default", rope_theta=1e3))), {}),
    "sarvam_mla": ("sarvam_mla", dict({**LATENT, "q_lora_rank": None}, n_shared_experts=1, n_group=1, topk_group=1,
                                      norm_topk_prob=True, routed_scaling_factor=2.5), {}),
    "glm4_moe_lite": ("glm4_moe_lite", dict(LATENT, n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True,
                                            routed_scaling_factor=1.8, mlp_layer_types=["dense", "sparse"]), {}),
    "minimax_m2": ("minimax_m2", dict(WIDE, intermediate_size=16, num_local_experts=5, num_experts_per_tok=2,
                                      rotary_dim=4, rope_theta=5e6, scoring_func="sigmoid", use_qk_norm=True), {}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", dict(WIDE, intermediate_size=16, num_experts=5, moe_topk=[2, 2],
                                              num_shared_expert=[1, 1], use_qk_norm=True, rope_scaling=dict(
                                                  type="dynamic", alpha=50.0, factor=1.0)), {}),
    # Short convolutions beside attention.
    "lfm2": ("lfm2", dict(LFM2, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False), {}),
    "lfm2-old": ("lfm2", dict(LFM2, full_attn_idxs=[1], block_ff_dim=120, block_multiple_of=16, conv_bias=True,
                              block_ffn_dim_multiplier=0.5, tie_embedding=False),
                 dict(without=("intermediate_size",))),
    "lfm2_vl": ("lfm2", dict(LFM2, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False,
                             model_type="lfm2"),
                dict(rename=as_new_nested, wrap=nested("lfm2_vl"))),
    "lfm2_moe": ("lfm2_moe", dict(LFM2, layer_types=["conv", "full_attention", "conv"], num_dense_layers=1,
                                  moe_intermediate_size=16, num_experts=5, num_experts_per_tok=2), {}),
    "lfm2_moe-fused": ("lfm2_moe", dict(LFM2, layer_types=["conv", "full_attention", "conv"], num_dense_layers=1,
                                        moe_intermediate_size=16, num_experts=5, num_experts_per_tok=2,
                                        use_expert_bias=False, norm_topk_prob=False), dict(fused=True)),
    "lfm3": ("lfm3", dict(LFM3, num_hidden_layers=3, layer_types=["conv", "sliding_attention", "full_attention"],
                          sliding_window=5, conv_L_cache=3, attention_bias=True,
                          rope_parameters=dict(full_attention=dict(rope_type="proportional", rope_theta=1e6,
                                                                   partial_rotary_factor=0.5),
                                               sliding_attention=dict(rope_type="default", rope_theta=1e4))), {}),
    "lfm3-bare": ("lfm3", dict(LFM3, num_hidden_layers=5, sliding_window=5, use_sandwich_norm=False, conv_bias=True,
                               tie_word_embeddings=False),
                  dict(without=("layer_types", "rope_parameters", "conv_L_cache"))),
    # State spaces, alone and beside attention.
    "bamba": ("bamba", dict(DUAL, attn_layer_indices=[1], mamba_proj_bias=True), {}),
    "falcon_h1": ("falcon_h1", dict(DUAL, mamba_d_ssm=40, head_dim=8, key_multiplier=0.7,
                                    attention_in_multiplier=1.2, attention_out_multiplier=0.8, ssm_in_multiplier=0.9,
                                    ssm_out_multiplier=1.3, ssm_multipliers=[0.8, 1.1, 0.9, 1.2, 0.7],
                                    mlp_multipliers=[0.8, 1.3], embedding_multiplier=2.0, lm_head_multiplier=0.6,
                                    mamba_rms_norm=True), {}),
    "falcon_h1-plain": ("falcon_h1", dict(DUAL, mamba_d_ssm=None, mamba_rms_norm=False, projectors_bias=True), {}),
    "falcon_h1-norm-after": ("falcon_h1", dict(DUAL, mamba_d_ssm=48, mamba_rms_norm=True,
                                               mamba_norm_before_gate=False), {}),
    "granitemoehybrid": ("granitemoehybrid", dict(DUAL, **GRANITE, num_local_experts=0, num_experts_per_tok=0,
                                                  shared_intermediate_size=40, position_embedding_type="nope",
                                                  layer_types=["mamba", "attention", "mamba"]), {}),
    "granitemoehybrid-experts": ("granitemoehybrid", dict(DUAL, **GRANITE, num_local_experts=5, num_experts_per_tok=2,
                                                          shared_intermediate_size=24, intermediate_size=16,
                                                          position_embedding_type="rope",
                                                          layer_types=["mamba", "attention", "mamba"]), {}),
    "nemotron_h": ("nemotron_h", dict(NEMOTRON_H, hybrid_override_pattern="M-*-", num_hidden_layers=4), {}),
    "nemotron_h-experts": ("nemotron_h", dict(NEMOTRON_H, hybrid_override_pattern="ME*E", num_hidden_layers=4,
                                              moe_intermediate_size=16, moe_shared_expert_intermediate_size=24,
                                              n_routed_experts=6, n_shared_experts=1, num_experts_per_tok=2,
                                              n_group=2, topk_group=1, norm_topk_prob=True,
                                              routed_scaling_factor=2.5), {}),
    "nemotron_h-all-keys": ("nemotron_h", dict(NEMOTRON_H, layers_block_type=["linear_attention", "moe", "mlp"],
                                               moe_intermediate_size=16, moe_shared_expert_intermediate_size=24,
                                               n_routed_experts=6, num_experts_per_tok=2),
                            dict(all_keys=True)),
    "jamba": ("jamba", JAMBA, {}),
    "jamba-dense": ("jamba", dict(JAMBA, num_experts=1, num_experts_per_tok=1, mamba_dt_rank=5), {}),
    "jamba-fused": ("jamba", JAMBA, dict(fused=True)),
    "mamba2": ("mamba2", dict(hidden_size=24, num_hidden_layers=2, num_heads=8, head_dim=6, state_size=12, n_groups=2,
                              expand=2, chunk_size=8, vocab_size=VOCABULARY, time_step_limit=[0.05, 1.5], **SOME), {}),
    "mamba": ("mamba", dict(SCAN, use_bias=True), {}),
    "falcon_mamba": ("falcon_mamba", dict(SCAN, tie_word_embeddings=False, mixer_rms_eps=1e-5), {}),
    # The gated delta rule in most blocks.
    "qwen3_next": ("qwen3_next", dict(DELTA, **EXPERTS, shared_expert_intermediate_size=24, intermediate_size=40,
                                      mlp_only_layers=[1], rope_theta=1e4, partial_rotary_factor=0.5,
                                      full_attention_interval=3), {}),
    "qwen3_next-fused": ("qwen3_next", dict(DELTA, **EXPERTS, shared_expert_intermediate_size=24, intermediate_size=40,
                                            layer_types=["full_attention", "linear_attention", "linear_attention"],
                                            norm_topk_prob=False, decoder_sparse_step=2), dict(fused=True)),
    "qwen3_5_text": ("qwen3_5_text", dict(DELTA, intermediate_size=40, attn_output_gate=True, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5, mrope_interleaved=True, mrope_section=[1, 1, 0]),
        layer_types=["linear_attention", "linear_attention", "full_attention"]), {}),
    "qwen3_5": ("qwen3_5_text", dict(DELTA, intermediate_size=40, tie_word_embeddings=True, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5, mrope_interleaved=True, mrope_section=[1, 1, 0])),
                dict(inside("qwen3_5", **QWEN3_5_TOWER), rename=with_mtp)),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", dict(DELTA, **EXPERTS, shared_expert_intermediate_size=24,
                                                  partial_rotary_factor=0.5, full_attention_interval=2),
                         dict(fused=True)),
    "qwen3_5_moe": ("qwen3_5_moe_text", dict({**DELTA, "num_hidden_layers": 2}, **EXPERTS,
                                             shared_expert_intermediate_size=24, full_attention_interval=2,
                                             rope_parameters=dict(rope_type="default", rope_theta=1e4,
                                                                  partial_rotary_factor=0.5, mrope_interleaved=True,
                                                                  mrope_section=[1, 1, 0])),
                    dict(inside("qwen3_5_moe", **QWEN3_5_TOWER), rename=with_mtp, fused=True)),
    "olmo_hybrid": ("olmo_hybrid", dict(
        {**EVEN, **SOME, "num_hidden_layers": 3, "hidden_size": 24, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4}, linear_key_head_dim=8, linear_value_head_dim=12,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        rope_parameters=dict(rope_type=None, rope_theta=None)), dict(rename=as_released_olmo_hybrid)),
    # Experts as transformers 5 holds them.
    "qwen3_moe-fused": ("qwen3_moe", dict(WIDE, **EXPERTS, norm_topk_prob=True), dict(fused=True)),
    "mixtral-fused": ("mixtral", MIXTRAL, dict(fused=True)),
    "minimax_m2-fused": ("minimax_m2", dict(WIDE, intermediate_size=16, num_local_experts=5, num_experts_per_tok=2,
                                            rotary_dim=4), dict(fused=True)),
    "ernie4_5_moe-fused": ("ernie4_5_moe", dict(EVEN, moe_intermediate_size=16, moe_num_shared_experts=2,
                                                moe_num_experts=6, moe_k=2, moe_layer_start_index=1,
                                                moe_layer_interval=1), dict(fused=True)),
    "granitemoe-fused": ("granitemoe", dict(EVEN, num_local_experts=5, num_experts_per_tok=2, intermediate_size=16,
                                            **GRANITE), dict(fused=True)),
    "phimoe-fused": ("phimoe", dict(EVEN, num_local_experts=5, num_experts_per_tok=2, intermediate_size=16),
                     dict(fused=True)),
    "opt-bare-norms": ("opt", dict(hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=3,
                                   vocab_size=VOCABULARY, max_position_embeddings=64, word_embed_proj_dim=24,
                                   layer_norm_elementwise_affine=False), {}),
}
# The rows of 2025 and 2026.
NEXT = dict(WIDE, layer_types=["full_attention", "sliding_attention"], sliding_window=5)
SPARSE = dict(moe_intermediate_size=16, num_experts=5, num_experts_per_tok=2)
INDEX = dict(index_topk=2048, index_head_dim=16, index_n_heads=2)
CASES |= {
    "jais2": ("jais2", EVEN, {}),
    "granite_swa": ("granite_swa", dict({**EVEN, "num_hidden_layers": 4}, **GRANITE, sliding_window=5,
                                        layer_types=["full_attention"] + ["sliding_attention"] * 3,
                                        layer_rope_theta=[0, 10000, 500.0, 10000]), {}),
    "granitemoe_swa": ("granitemoe_swa", dict(
        EVEN, num_local_experts=4, num_experts_per_tok=2, intermediate_size=16, shared_intermediate_size=24, **GRANITE,
        sliding_window=5, layer_types=["full_attention", "sliding_attention"], layer_rope_theta=[0, 10000]), {}),
    "hyperclovax": ("hyperclovax", dict(EVEN, embedding_multiplier=3.0, attention_multiplier=0.3,
                                        residual_multiplier=0.7, logits_scaling=0.5), {}),
    "hyperclovax-bare": ("hyperclovax", dict(EVEN, use_post_norm=False), {}),
    "nanochat": ("nanochat", dict(EVEN, final_logit_softcapping=5.0, num_attention_heads=6, num_key_value_heads=2), {}),
    "vaultgemma": ("vaultgemma", dict(WIDE, sliding_window=5, query_pre_attn_scalar=10, attn_logit_softcapping=5.0,
                                      final_logit_softcapping=4.0), {}),
    "persimmon": ("persimmon", dict(ALONE, qk_layernorm=True, rope_theta=25000.0, partial_rotary_factor=0.5), {}),
    "biogpt": ("biogpt", dict(ALONE, scale_embedding=True, hidden_act="gelu"), {}),
    "youtu": ("youtu", dict({key: value for key, value in LATENT.items() if key not in (
        "n_routed_experts", "num_experts_per_tok", "first_k_dense_replace", "moe_intermediate_size")}), {}),
    "minicpm3": ("minicpm3", dict({key: value for key, value in LATENT.items() if key not in (
        "n_routed_experts", "num_experts_per_tok", "first_k_dense_replace", "moe_intermediate_size")},
        scale_emb=12, scale_depth=1.4, dim_model_base=16), {}),
    "axk1": ("axk1", dict(LATENT, n_shared_experts=1, n_group=4, topk_group=2, norm_topk_prob=True,
                          routed_scaling_factor=2.5), {}),
    "deepseek_v32": ("deepseek_v32", dict(LATENT, **INDEX, n_shared_experts=1, n_group=4, topk_group=2,
                                          norm_topk_prob=True, routed_scaling_factor=2.5), {}),
    "glm_moe_dsa": ("glm_moe_dsa", dict(LATENT, **INDEX, n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True,
                                        routed_scaling_factor=2.5, indexer_types=["full", "shared"]), {}),
    "solar_open": ("solar_open", dict({key: value for key, value in WIDE.items() if key != "intermediate_size"},
                                      moe_intermediate_size=16, n_shared_experts=1, n_routed_experts=6, n_group=1,
                                      topk_group=1, num_experts_per_tok=3, routed_scaling_factor=1.5), {}),
    "sarvam_moe": ("sarvam_moe", dict(WIDE, **GLM_MOE), {}),
    "exaone_moe": ("exaone_moe", dict(WIDE, **SPARSE, num_hidden_layers=4, sliding_window=5, sliding_window_pattern="LLLG",
                                      layer_types=["sliding_attention"] * 3 + ["full_attention"],
                                      num_shared_experts=1, first_k_dense_replace=1, routed_scaling_factor=2.5), {}),
    "kolibri1": ("kolibri1", dict({key: value for key, value in NEXT.items() if key != "intermediate_size"}, **SPARSE,
                                  shared_expert_intermediate_size=24, norm_topk_prob=True), {}),
    "flex_olmo": ("flex_olmo", dict(EVEN, num_experts=5, num_experts_per_tok=2, intermediate_size=16, **SOME), {}),
    "afmoe": ("afmoe", dict(NEXT, **SPARSE, num_shared_experts=1, num_dense_layers=1, route_scale=2.0,
                            mup_enabled=True), {}),
    "laguna": ("laguna", dict(NEXT, **SPARSE, shared_expert_intermediate_size=24, moe_routed_scaling_factor=1.5,
                              mlp_layer_types=["dense", "sparse"], num_attention_heads_per_layer=[8, 16], gating=True,
                              rope_parameters=dict(
                                  full_attention=dict(rope_type="default", rope_theta=5e5, partial_rotary_factor=0.5),
                                  sliding_attention=dict(rope_type="default", rope_theta=1e4,
                                                         partial_rotary_factor=1.0))), {}),
    "laguna-elements": ("laguna", dict(NEXT, **SPARSE, shared_expert_intermediate_size=24, gating="per-element",
                                       mlp_layer_types=["dense", "sparse"]), {}),
    "hy_v3": ("hy_v3", dict(WIDE, **SPARSE, num_shared_experts=1, router_scaling_factor=2.0), {}),
    "flint": ("flint", dict(NEXT, **SPARSE, shared_expert_intermediate_size=24, mlp_only_layers=[0],
                            norm_topk_prob=True), {}),
    "cohere2_moe": ("cohere2_moe", dict(
        {**WIDE, "num_hidden_layers": 3, "intermediate_size": 16}, num_experts=5, num_experts_per_tok=2, num_shared_experts=1,
        first_k_dense_replace=1, prefix_dense_intermediate_size=40, expert_selection_fn="sigmoid", sliding_window=5,
        sliding_window_pattern=2, logit_scale=0.25, norm_topk_prob=True), {}),
    "cohere2_moe-rms": ("cohere2_moe", dict(
        WIDE, intermediate_size=16, num_experts=5, num_experts_per_tok=2, num_shared_experts=2, rms_norm_eps=1e-6,
        shared_expert_combination_strategy="sum", sliding_window=5,
        layer_types=["full_attention", "sliding_attention"]), {}),
    "aria_text": ("aria_text", dict(EVEN, intermediate_size=16, moe_num_experts=5, moe_topk=2,
                                    moe_num_shared_experts=2), {}),
}
CASES |= {
    "apertus": ("apertus", dict(EVEN, rope_theta=12e6, rope_scaling=dict(
        rope_type="llama3", factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8)), {}),
    "apertus1p5_text": ("apertus1p5_text", EVEN, {}),
    "xglm": ("xglm", dict(d_model=24, ffn_dim=40, num_layers=2, attention_heads=3, vocab_size=VOCABULARY,
                          max_position_embeddings=64, activation_function="gelu", scale_embedding=True), {}),
    "mimo_v2_flash": ("mimo_v2_flash", dict(
        {**NEXT, "num_attention_heads": 8}, v_head_dim=4, moe_intermediate_size=16, n_routed_experts=6, n_group=1,
        topk_group=1, num_experts_per_tok=3, norm_topk_prob=True, attention_bias=True, mlp_layer_types=["dense", "sparse"],
        rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=5e6, partial_rotary_factor=0.5),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4,
                                                    partial_rotary_factor=0.5))), {}),
    "phi4_multimodal": ("phi4_multimodal", dict(EVEN, partial_rotary_factor=0.75, sliding_window=None, **SOME,
                                                vision_config=dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                                                   num_attention_heads=2, image_size=28, patch_size=14,
                                                                   crop_size=28),
                                                audio_config=dict(hidden_size=8, intermediate_size=8, num_blocks=1,
                                                                  num_attention_heads=2, nemo_conv_channels=4,
                                                                  ext_pw_out_channel=8)), {}),
    "minimax_m3_vl": ("minimax_m3_vl_text", dict(
        WIDE, intermediate_size=16, dense_intermediate_size=40, shared_intermediate_size=24, num_local_experts=5,
        num_experts_per_tok=2, rotary_dim=4, partial_rotary_factor=0.5, rope_theta=5e6, routed_scaling_factor=2.0, index_n_heads=2,
        index_head_dim=8, mlp_layer_types=["dense", "sparse"],
        layer_types=["full_attention", "minimax_m3_sparse"]),
        dict(inside("minimax_m3_vl", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                    image_size=28, patch_size=14), rename=without("vision_tower", "projector", "patch_merge"))),
    "emu3": ("emu3_text_model", dict({**EVEN, "num_hidden_layers": 3}, **SOME, rope_theta=1e6,
                                     model_type="emu3_text_model"), dict(
        rename=without("vqmodel."),
        whole=lambda config: {"model_type": "emu3", "text_config": config, "vocabulary_map": {"<image>": 3},
                              "vq_config": dict(codebook_size=16, base_channels=32, num_res_blocks=1, hidden_size=32,
                                                channel_multiplier=[1], attn_resolutions=[])})),
    "got_ocr2": ("qwen2", dict(EVEN, rope_theta=1e6, tie_word_embeddings=True), inside(
        "got_ocr2", hidden_size=8, output_channels=8, num_hidden_layers=1, num_attention_heads=2, image_size=16,
        patch_size=8, mlp_dim=8, window_size=2, global_attn_indexes=[0])),
}
GEMMA4 = dict(WIDE, num_hidden_layers=4, sliding_window=5, global_head_dim=16, final_logit_softcapping=4.0,
              layer_types=["sliding_attention", "full_attention"] * 2, hidden_activation="gelu_pytorch_tanh")
CASES |= {
    "gemma4_text": ("gemma4_text", dict(GEMMA4, attention_k_eq_v=True, num_global_key_value_heads=1,
                                        hidden_size_per_layer_input=0), {}),
    "gemma4_text-experts": ("gemma4_text", dict(
        {**GEMMA4, "num_hidden_layers": 2, "layer_types": GEMMA4["layer_types"][:2]}, hidden_size_per_layer_input=0,
        enable_moe_block=True, num_experts=5, top_k_experts=2, moe_intermediate_size=16), {}),
    "gemma4": ("gemma4_text", dict(
        {**GEMMA4, "num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3},
        hidden_size_per_layer_input=8, num_kv_shared_layers=3, use_double_wide_mlp=True,
        vocab_size_per_layer_input=VOCABULARY, model_type="gemma4_text"),
        dict(rename=as_new_nested, wrap=nested("gemma4"))),
    "gemma3n": ("gemma3n_text", dict(
        {**WIDE, "num_hidden_layers": 4, "intermediate_size": [40, 32, 40, 40]}, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY - 6, activation_sparsity_pattern=[0.7, 0.0, 0.6, 0.0], laurel_rank=4,
        altup_num_inputs=3, final_logit_softcapping=4.0, hidden_activation="gelu_pytorch_tanh",
        model_type="gemma3n_text"),
        dict(rename=as_new_nested, wrap=nested("gemma3n"))),
    "gemma4_unified": ("gemma4_unified_text", dict(GEMMA4, attention_k_eq_v=True, num_global_key_value_heads=1,
                                                   use_bidirectional_attention="vision",
                                                   model_type="gemma4_unified_text"),
                       dict(rename=as_new_nested, wrap=nested("gemma4_unified"))),
    "openelm": ("openelm", dict(
        model_dim=24, head_dim=8, num_transformer_layers=2, max_context_length=64, vocab_size=VOCABULARY,
        num_query_heads=[4, 8], num_kv_heads=[2, 2], num_gqa_groups=4, qkv_multipliers=[0.5, 1.0],
        ffn_multipliers=[1.0, 1.7], ffn_dim_divisor=8, ffn_with_glu=True, activation_fn_name="swish",
        normalization_layer_name="rms_norm", normalize_qk_projections=True, rope_freq_constant=10000,
        rope_max_length=128, share_input_output_layers=True, initializer_range=0.02),
        dict(narrow([(4, 2, 24), (8, 2, 40)], 8, as_openelm),
             as_native=("qwen3", dict({**WIDE, "intermediate_size": 40}, num_attention_heads=8, num_key_value_heads=8,
                                      rms_norm_eps=1e-6, rope_theta=1e4, tie_word_embeddings=True)))),
    "nemotron-nas": ("nemotron-nas", dict(
        {**ALONE, "num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 8}, intermediate_size=None,
        num_key_value_heads=None, rope_theta=1e4, block_configs=[
            dict(attention=dict(n_heads_in_group=4, no_op=False, replace_with_linear=False),
                 ffn=dict(ffn_mult=20.0, no_op=False, replace_with_linear=False)),
            dict(attention=dict(n_heads_in_group=None, no_op=True, replace_with_linear=False),
                 ffn=dict(ffn_mult=None, no_op=True, replace_with_linear=False)),
            dict(attention=dict(n_heads_in_group=None, no_op=True, replace_with_linear=False),
                 ffn=dict(ffn_mult=1.3125, no_op=False, replace_with_linear=False)),
            dict(attention=dict(n_heads_in_group=2, no_op=False, replace_with_linear=False),
                 ffn=dict(ffn_mult=None, no_op=True, replace_with_linear=False))]),
        dict(narrow([(8, 2, 512), (0, 0, 0), (0, 0, 256), (8, 4, 0)], 4),
             as_native=("llama", dict(intermediate_size=512, num_key_value_heads=8, block_configs=None)))),
    "moss_transcribe_diarize": ("qwen3", dict(WIDE, rope_theta=1e6, model_type="qwen3"), dict(
        rename=as_new_nested, wrap=nested("moss_transcribe_diarize"))),
    "mistral4": ("mistral4", dict(LATENT, n_shared_experts=1, n_group=4, topk_group=2, norm_topk_prob=True,
                                  routed_scaling_factor=2.0, rope_parameters=dict(
                                      rope_type="yarn", rope_theta=1000.0, factor=4.0, beta_fast=32.0, beta_slow=1.0,
                                      original_max_position_embeddings=5, mscale=1.0, mscale_all_dim=1.0,
                                      llama_4_scaling_beta=0.3)),
                 dict(rename=without("vision_tower", "projector"), whole=lambda config: {
                     "model_type": "mistral3", "text_config": config, "tie_word_embeddings": False,
                     "vision_config": dict(model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                           num_attention_heads=2, head_dim=4, image_size=28, patch_size=14)})),
    "mllama": ("mllama_text_model", dict(
        {**EVEN, "num_hidden_layers": 4}, cross_attention_layers=[1], rope_theta=5e5, pad_token_id=0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0,
                          original_max_position_embeddings=8)),
               dict(inside("mllama", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_global_layers=1,
                           attention_heads=2, image_size=8, patch_size=4, vision_output_dim=8, 
                           max_num_tiles=4,
                           intermediate_layers_indices=[]), rename=without("vision_model", "projector"))),
    "cohere_compass_text": ("cohere_compass_text", dict(
        NEXT, rope_parameters=dict(full_attention=None, sliding_attention=dict(
            rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2]))), {}),
    "gpt_neox_japanese": ("gpt_neox_japanese", dict(
        {key: value for key, value in ALONE.items() if key != "intermediate_size"}, intermediate_multiple_size=2,
        rotary_pct=1.0, rotary_emb_base=10000), {}),
    "modernbert-decoder": ("modernbert-decoder", dict(
        {**ALONE, "num_hidden_layers": 3}, local_attention=10, global_rope_theta=160000.0, local_rope_theta=10000.0,
        global_attn_every_n_layers=3, **SOME, cls_token_id=1, sep_token_id=2), {}),
    "fuyu": ("persimmon", dict(ALONE, qk_layernorm=True, model_type="persimmon"), dict(
        rename=with_prefix("language_model.", "vision_embed_tokens.weight"), wrap=nested("fuyu"))),
}
# Norms that add one to their weight.
FROM_ZERO = ("gemma_", "gemma2", "gemma3", "nemotron", "vaultgemma", "qwen3_next", "qwen3_5")
FROM_ONE = ("nemotron_h", "gemma3n_text")


def fill(model, model_type, generator):
    """Activations of order one and sharp attention, so that a mistake moves the answers far more than rounding."""
    turned = {"gpt2": ("c_attn", "c_proj", "c_fc"), "gpt_oss": ("experts",), "llama4_text": ("experts",)}
    embedding = model.get_input_embeddings().weight
    buffers = [(name, buffer) for name, buffer in model.named_buffers()
               if "correction_bias" in name or "expert_bias" in name or name.endswith("layer_scalar")]
    for name, weight in list(model.named_parameters()) + buffers:
        normal = torch.randn(weight.shape, generator=generator)
        if "bias" in name or name.endswith("sinks"):
            values = 0.4 * normal
        elif "A_log" in name:
            values = -2 + 0.5 * normal  # states that live for many tokens
        elif "norm" in name or ".ln_" in name or weight.dim() == 1:
            size = 0.5 if model_type.startswith(("gemma3n", "gemma4")) and "k_norm" in name else 1  # its scores have no scale
            from_zero = (model_type + "_").startswith(FROM_ZERO) and model_type not in FROM_ONE and "linear_attn" not in name
            values = size * ((0 if from_zero else 1) + 0.2 * normal)
        elif weight is embedding:
            values = normal / math.sqrt(weight.shape[1]) if model_type.startswith("gemma") else normal
        else:
            is_turned = any(part in name for part in turned.get(model_type, ())) and "router" not in name
            inputs = weight.shape[-2] if is_turned else weight.shape[-1]
            sharp = 3 if "gate.weight" in name or "router" in name else 1.3
            values = sharp * inputs**-0.5 * normal
        weight.data.copy_(values.to(torch.bfloat16))


def blocks_of(model, count):
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
    return max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))


def make(case):
    model_type, config, special = CASES[case]
    native, changes = special.get("as_native", (model_type, {}))
    folder, native_folder = HERE / case, HERE / (case + ".native")
    for path in (folder, native_folder):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    config = {key: value for key, value in config.items() if key not in special.get("without", ())}
    native_config = {**config, **changes, "model_type": native}
    whole = special.get("whole")
    if whole:
        native_config = whole(native_config)
    kind = AutoModelForImageTextToText if whole else AutoModelForCausalLM
    (native_folder / "config.json").write_text(json.dumps(native_config))
    parsed = AutoConfig.from_pretrained(native_folder)
    attention = special.get("attention", "eager")
    generator = torch.Generator().manual_seed(sum(case.encode()))
    torch.manual_seed(sum(case.encode()))
    model = kind.from_config(parsed, dtype=torch.float32)
    fill(model, native, generator)
    special.get("change", lambda model: None)(model)
    if case == "baichuan2":
        model.lm_head.weight.data = torch.nn.functional.normalize(model.lm_head.weight.data)
    model.to(special.get("dtype", torch.bfloat16)).save_pretrained(
        native_folder, save_original_format=not special.get("fused", False))
    (native_folder / "config.json").write_text(json.dumps(native_config))
    model, loading = kind.from_pretrained(
        native_folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
    model.eval()
    seen = {}
    for index, block in enumerate(blocks_of(model, model.config.get_text_config().num_hidden_layers)):
        if index in special.get("idle", ()):
            continue
        block.register_forward_hook(  # those that text passes, in order
            lambda module, inputs, output: seen.update(
            {f"block.{len(seen)}": output[0] if isinstance(output, tuple) else output}))
    input_ids = torch.randint(0, VOCABULARY, (2, TOKENS), generator=generator)
    with torch.no_grad():
        output = model(input_ids=input_ids, labels=input_ids, use_cache=False, **special.get("inputs", {}))
    seen["logits"] = output.logits
    golden = {name: tensor.reshape(-1, tensor.shape[-1]).float().contiguous().clone() for name, tensor in seen.items()}
    golden |= {"input_ids": input_ids.to(torch.int32), "loss": output.loss.reshape(1).float()}
    assert all(torch.isfinite(tensor.float()).all() for tensor in golden.values())
    save_file(golden, folder / "golden.safetensors")

    stored = {}
    for file in native_folder.glob("*.safetensors"):
        stored |= load_file(file)
    stored = special.get("rename", lambda weights: weights)(stored)
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    written = {"model_type": model_type, **config}
    if special.get("all_keys"):  # as transformers writes it
        written = {key: value for key, value in json.loads(parsed.to_json_string(use_diff=False)).items()
                   if key != "_name_or_path"}
    written = native_config if whole else special.get("wrap", lambda text: text)(written)
    (folder / "config.json").write_text(json.dumps({**written, "torch_dtype": "bfloat16"}, indent=1) + "\n")
    shutil.rmtree(native_folder)
    print(f"{case:24} loss {golden['loss'].item():.4f}  "
          + "  ".join(f"{key} rms {golden[key].square().mean().sqrt():.2f}" for key in ("block.0", "logits")), flush=True)


for wanted in sys.argv[1:] or CASES:
    make(wanted)
