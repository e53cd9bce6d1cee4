#!/usr/bin/env python3
"""Do quantized folders of many families mean the same to everyone?

  python families.py --gptq build/release/gptq [family ...]       (needs torch, transformers, optimum, gptqmodel)

For each family a small random model is made, quantized to 4 bits by `gptq quantize`, and read

  * by transformers in fp32, from plain weights that check.py takes out of the packed words: the yardstick;
  * by gptq, packed and from those plain weights, which must give the same predictions (`gptq compare`);
  * by GPTQModel and by transformers, packed: the logits must be the yardstick's within the rounding of fp16 weights.

One line a family, with the largest difference of logits relative to their root mean square. A loader that lacks a
family, or fails on it, is named with its first words; the family passes where at least one of both reads it right.
Exits with 1 when a family fails.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
warnings.filterwarnings("ignore")

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from check import dequantize, read_tensors

VOCABULARY, TOKENS = 256, 48
# fp16 holds a weight to 2^-12 of itself, and a chain of sums of such weights stays near that.
LIMIT = 2.0**-8

WIDE = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=VOCABULARY, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)
ALONE = {key: value for key, value in WIDE.items() if key != "num_key_value_heads"}
GPT = dict(n_embd=128, n_layer=2, n_head=4, n_positions=128, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2)
LATENT = dict(ALONE, num_key_value_heads=4, moe_intermediate_size=64, kv_lora_rank=64, q_lora_rank=64,
              qk_rope_head_dim=32, qk_nope_head_dim=32, v_head_dim=32, n_routed_experts=4, num_experts_per_tok=2,
              n_shared_experts=1, first_k_dense_replace=1, norm_topk_prob=True, n_group=1, topk_group=1)
DELTA = dict(WIDE, num_hidden_layers=4, head_dim=32, linear_num_key_heads=2, linear_num_value_heads=4,
             linear_key_head_dim=32, linear_value_head_dim=32, linear_conv_kernel_dim=4)
DUAL = dict(WIDE, num_hidden_layers=3, mamba_n_heads=32, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=32,
            mamba_d_conv=4, mamba_expand=2, mamba_chunk_size=16)
FAMILIES = {
    "llama": WIDE,
    "qwen2": WIDE,
    "qwen3": dict(WIDE, head_dim=32),
    "gemma2": dict(WIDE, head_dim=32, query_pre_attn_scalar=32),
    "phi": WIDE,
    "phi3": WIDE,
    "gpt2": GPT,
    "gpt_neox": ALONE,
    "gptj": dict(GPT, rotary_dim=16),
    "opt": dict(hidden_size=128, ffn_dim=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY,
                max_position_embeddings=128, word_embed_proj_dim=128),
    "bloom": dict(hidden_size=128, n_layer=2, n_head=4, vocab_size=VOCABULARY),
    "falcon": dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, vocab_size=VOCABULARY,
                   new_decoder_architecture=True, bos_token_id=1, eos_token_id=2),
    "mpt": dict(d_model=128, n_heads=4, n_layers=2, vocab_size=VOCABULARY, max_seq_len=128),
    "cohere": WIDE,
    "starcoder2": WIDE,
    "mixtral": dict(WIDE, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": dict(WIDE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
                      shared_expert_intermediate_size=128),
    "qwen3_moe": dict(WIDE, head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
                      norm_topk_prob=True),
    "olmoe": dict(WIDE, num_experts=4, num_experts_per_tok=2),
    "deepseek_v2": dict(LATENT, topk_method="greedy", norm_topk_prob=False),
    "deepseek_v3": LATENT,
    "glm4_moe": dict(WIDE, head_dim=32, moe_intermediate_size=64, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
                     topk_group=1, n_shared_experts=1, first_k_dense_replace=1),
    "granitemoe": dict(WIDE, num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": dict(WIDE, head_dim=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=16),
    "lfm2": dict(WIDE, num_hidden_layers=3, block_auto_adjust_ff_dim=False,
                 layer_types=["conv", "full_attention", "conv"]),
    "qwen3_next": dict(DELTA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=96,
                       shared_expert_intermediate_size=64),
    "qwen3_5_text": DELTA,
    "qwen3_5_moe_text": dict(DELTA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=96,
                             shared_expert_intermediate_size=64),
    "granitemoehybrid": dict(DUAL, num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=128,
                             layer_types=["mamba", "attention", "mamba"]),
    "falcon_h1": dict(DUAL, mamba_d_ssm=256),
    "bamba": dict(DUAL, attn_layer_indices=[1]),
    "nemotron_h": dict(WIDE, head_dim=32, layers_block_type=["mamba", "attention", "mlp", "mamba"], mamba_num_heads=32,
                       mamba_head_dim=8, n_groups=1, ssm_state_size=32, conv_kernel=4, chunk_size=16),
}


def make_model(family, folder):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family]), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "norm" not in name:
                scale = 1 if weight is model.get_input_embeddings().weight else 1.2 * weight.shape[-1] ** -0.5
                weight.normal_(std=scale)
            elif "bias" in name or "sinks" in name:
                weight.normal_(std=0.2)
    model.to(torch.float16).save_pretrained(folder)
    words = {f"w{i}": i for i in range(VOCABULARY)}  # GPTQModel asks for a tokenizer
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0"))).save_pretrained(folder)


def fused_experts(linear, name, like):
    """[experts, out, in], gates before ups; gpt_oss: [experts, in, out], gates and ups in turn."""
    parts = ["gate_proj", "up_proj"] if name.endswith("gate_up_proj") else ["down_proj"]
    fused = name.rsplit(".", 1)[0]
    experts = [[linear[f"{fused}.{e}.{part}"] for part in parts] for e in range(len(like))]
    if torch.cat(experts[0]).shape == like.shape[1:]:
        return torch.stack([torch.cat(matrices) for matrices in experts])
    return torch.stack([torch.stack([matrix.T for matrix in matrices], -1) for matrices in experts]).reshape(like.shape)


def plain_weights(source, packed, is_turned):
    """The source's tensors with the values that the packed words stand for."""
    checkpoint_format = json.loads((packed / "quantize_config.json").read_text()).get("checkpoint_format", "gptq")
    tensors, original = read_tensors(packed), read_tensors(source)
    linear = {name[: -len(".qweight")]: None for name in tensors if name.endswith(".qweight")}
    for name in linear:
        linear[name] = dequantize(tensors, name, checkpoint_format)
    plain = {}
    for name, tensor in original.items():
        module = name.removesuffix(".weight")
        if module in linear:
            plain[name] = linear[module].T if is_turned else linear[module]
        elif tensor.dim() == 3 and ".experts." in name:
            plain[name] = fused_experts(linear, name, tensor)
        elif tensor.dim() == 3 and f"{module}.0.linear" in linear:  # granitemoe
            plain[name] = torch.stack([linear[f"{module}.{e}.linear"] for e in range(len(tensor))])
        else:
            plain[name] = tensor.float() if tensor.is_floating_point() else tensor
    return {name: tensor.contiguous() for name, tensor in plain.items()}


def run_gptq(gptq, *arguments):
    done = subprocess.run([str(gptq), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:])
    return done.stdout


def logits_of(model, ids):
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([line])).logits[0].float() for line in ids])


def first_words(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"


def check(family, gptq, work):
    source, packed, plain = work / "model", work / "packed", work / "plain"
    make_model(family, source)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, VOCABULARY, (24, TOKENS), generator=generator).tolist()
    (work / "ids.jsonl").write_text("".join(json.dumps({"input_ids": line}) + "\n" for line in ids))
    run_gptq(gptq, "quantize", source, packed, "--calibration", work / "ids.jsonl", "--samples", 24, "--sequence-length",
             TOKENS, "--group-size", 32, "--expert-tokens", 64, "--quiet")
    plain.mkdir()
    save_file(plain_weights(source, packed, family == "gpt2"), plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    both = json.loads(run_gptq(gptq, "compare", plain, packed, "--text", work / "ids.jsonl", "--context", TOKENS, "--json"))
    own = both["texts"][0]["mean_kl"]

    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32, attn_implementation="eager").eval()
    expected = logits_of(model, ids[:4])
    rms = expected.square().mean().sqrt()

    def load_gptqmodel():
        from gptqmodel import BACKEND, GPTQModel
        return GPTQModel.load(str(packed), device="cpu", dtype=torch.float16, backend=BACKEND.GPTQ_TORCH).float()

    def load_transformers():
        return AutoModelForCausalLM.from_pretrained(packed, device_map="cpu", dtype=torch.float32)

    found, good = [], False
    for loader, load in (("GPTQModel", load_gptqmodel), ("transformers", load_transformers)):
        try:
            model = load().eval()
            kernels = sum(hasattr(module, "qweight") for module in model.modules())
            difference = ((logits_of(model, ids[:4]) - expected).abs().max() / rms).item()
            good = good or difference < LIMIT
            found.append(f"{loader} {difference:.1e} ({kernels} linears)")
        except Exception as error:  # a loader may fail in any way; that is the finding
            found.append(f"{loader}: {first_words(error)}")
    passed = good and own < 1e-6
    print(f"{'PASS' if passed else 'FAIL'}  {family:12} gptq KL {own:.1e} | {' | '.join(found)}", flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=f"[{', '.join(FAMILIES)}]")
    parser.add_argument("--gptq", type=pathlib.Path, required=True, help="the gptq program")
    options = parser.parse_args()
    failed = []
    for family in options.families or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="gptq-families-") as work:
            try:
                if not check(family, options.gptq, pathlib.Path(work)):
                    failed.append(family)
            except Exception as error:
                print(f"FAIL  {family:12} {first_words(error)}", flush=True)
                failed.append(family)
    print("all families agree" if not failed else f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
