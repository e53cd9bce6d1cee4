#!/usr/bin/env python3
"""Does a folder written by `gptq quantize` mean the same to everyone?

Four readers, all on the CPU: plain PyTorch in fp32 with weights taken from the packed words by the code below (written
from the description of the format, sharing nothing with gptq.cpp or other tools), transformers, GPTQModel, and
`gptq eval`. The first one is the yardstick: the others must reach its perplexity and its greedy continuation. With
--gptq, `gptq compare` also sets the logits of the packed folder against those of the same weights unpacked here.

Prints one PASS or FAIL line per check and exits with 1 when one failed. See README.md and run.sh.
"""
import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# GPTQModel 7.7 asks for two workers of a pool that it sizes by half the cores, so it needs this on one or two cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

failures = 0


def verdict(passed, text):
    global failures
    failures += not passed
    print(("PASS  " if passed else "FAIL  ") + text, flush=True)


# --- the format, from its description ---------------------------------------------------------------------------------


def unstream(words, count, bits):
    """Codes [count, columns] of a dense bit stream down the columns of words [n, columns]: code i at bit i * bits, low
    bits first."""
    words = numpy.concatenate([words.view(numpy.uint32), numpy.zeros((1, words.shape[1]), numpy.uint32)])
    position = numpy.arange(count) * bits
    word, shift = position // 32, (position % 32).astype(numpy.uint64)[:, None]
    pair = words[word].astype(numpy.uint64) | words[word + 1].astype(numpy.uint64) << numpy.uint64(32)
    return torch.from_numpy((pair >> shift & numpy.uint64(2**bits - 1)).astype(numpy.int32))


def dequantize(tensors, name, checkpoint_format):
    """weight [out_features, in_features] fp32 of one quantized linear."""
    qweight, qzeros, scales, g_idx = (tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx"))
    inputs, outputs = g_idx.numel(), qweight.shape[1]
    bits = qweight.shape[0] * 32 // inputs
    codes = unstream(qweight.numpy(), inputs, bits)
    zeros = unstream(numpy.ascontiguousarray(qzeros.numpy().T), outputs, bits).T  # [groups, outputs]
    if checkpoint_format == "gptq":  # stores zero - 1, modulo 2^bits
        zeros = (zeros + 1) & (2**bits - 1)
    group = g_idx.long()
    return (scales.float()[group] * (codes - zeros[group]).float()).T.contiguous()


def dequantize_compressed(tensors, name):
    """The same of a linear in compressed-tensors' pack-quantized form: codes along the rows, signed plus 2^(bits-1)."""
    packed, scales = tensors[name + ".weight_packed"], tensors[name + ".weight_scale"]
    outputs, inputs = tensors[name + ".weight_shape"].tolist()
    bits = packed.shape[1] * 32 // inputs
    codes = unstream(numpy.ascontiguousarray(packed.numpy().T), inputs, bits).T
    zeros = torch.tensor(2 ** (bits - 1))
    if name + ".weight_zero_point" in tensors:
        zeros = unstream(tensors[name + ".weight_zero_point"].numpy(), outputs, bits)
        zeros = zeros.repeat_interleave(inputs // scales.shape[1], 1)
    return (scales.float().repeat_interleave(inputs // scales.shape[1], 1) * (codes - zeros).float()).contiguous()


def read_tensors(folder):
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    tensors = {}
    for file in files:
        with safe_open(folder / file, "pt") as opened:
            tensors |= {key: opened.get_tensor(key) for key in opened.keys()}
    return tensors


def unpack_folder(folder, out):
    """Writes the folder with plain fp32 weights. Returns how many linears were quantized."""
    config = json.loads((folder / "config.json").read_text())
    checkpoint_format = config.pop("quantization_config").get("checkpoint_format", "gptq")
    config["dtype"] = "float32"
    config.pop("torch_dtype", None)
    tensors, plain, linears = read_tensors(folder), {}, 0
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        if part == "qweight":
            plain[name + ".weight"] = dequantize(tensors, name, checkpoint_format)
            linears += 1
        elif part == "weight_packed":
            plain[name + ".weight"] = dequantize_compressed(tensors, name)
            linears += 1
        elif part not in ("qzeros", "scales", "g_idx", "weight_scale", "weight_shape", "weight_zero_point"):
            plain[key] = tensor.float() if tensor.is_floating_point() else tensor
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name not in (
            "config.json", "quantize_config.json", "model.safetensors.index.json"
        ):
            shutil.copy(file, out / file.name)
    (out / "config.json").write_text(json.dumps(config, indent=2))
    save_file(plain, out / "model.safetensors", metadata={"format": "pt"})
    return linears


# --- what each reader makes of it -------------------------------------------------------------------------------------


def perplexity(model, ids, context, windows):
    """exp of the mean loss of each window's context - 1 predictions; windows without overlap."""
    count = min(windows, len(ids) // context) if windows else len(ids) // context
    total = 0.0
    with torch.inference_mode():
        for first in range(0, count * context, context):
            window = torch.tensor(ids[first : first + context])
            logits = model(input_ids=window[None]).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return math.exp(total / (count * (context - 1)))


def greedy(model, prompt, tokens):
    """The most likely next tokens one after the other, without a cache, so that every reader runs its plain forward."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(tokens):
            ids.append(model(input_ids=torch.tensor([ids])).logits[0, -1].float().argmax().item())
    return ids[len(prompt) :]


def run_gptq(*arguments):
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="written by gptq quantize")
    parser.add_argument("--text", type=pathlib.Path, required=True, help=".txt to compute perplexities on")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=32, help="0: all")
    parser.add_argument("--prompt", default="The history of the city begins")
    parser.add_argument("--tokens", type=int, default=20, help="of the greedy continuation")
    parser.add_argument("--gptq", type=pathlib.Path, help="the gptq program; without it, only the other readers")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="relative, of perplexities [0.001]")
    parser.add_argument("--readers", default="transformers,gptqmodel", help="[transformers,gptqmodel]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    folder, readers = options.folder, options.readers.split(",")
    torch.set_num_threads(options.threads)

    names = ("torch", "transformers", "optimum", "gptqmodel", "compressed-tensors", "tokenizers", "safetensors", "accelerate")
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    print("python", sys.version.split()[0], *(f"| {name} {installed.get(name, '-')}" for name in names))
    if options.gptq:
        print(subprocess.run([options.gptq, "--version"], capture_output=True, text=True).stdout.strip())

    in_config = json.loads((folder / "config.json").read_text())["quantization_config"]
    dequantizes = False
    if in_config["quant_method"] == "compressed-tensors":
        print("compressed-tensors:", [group["weights"] for group in in_config["config_groups"].values()])
        readers = [reader for reader in readers if reader != "gptqmodel"]  # which does not read it
        # transformers reads packed zero points only so: by default even those that the library wrote are refused.
        dequantizes = not all(group["weights"]["symmetric"] for group in in_config["config_groups"].values())
    else:
        beside = json.loads((folder / "quantize_config.json").read_text())
        verdict(in_config == beside, "config.json and quantize_config.json agree")
        keys = ("bits", "group_size", "sym", "desc_act", "checkpoint_format", "lm_head", "dynamic")
        print({key: in_config.get(key) for key in keys})

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(options.prompt)["input_ids"]
    ids = tokenizer(options.text.read_text(encoding="utf-8"))["input_ids"]

    with tempfile.TemporaryDirectory(prefix="gptq-interop-") as temporary:
        unpacked = pathlib.Path(temporary)
        print(unpack_folder(folder, unpacked), "quantized linears")
        model = AutoModelForCausalLM.from_pretrained(unpacked, dtype=torch.float32).eval()
        expected = perplexity(model, ids, options.context, options.windows)
        text = greedy(model, prompt, options.tokens)
        del model
        print(f"plain PyTorch: perplexity {expected:.4f}; {tokenizer.decode(prompt + text)!r}", flush=True)

        def compare(reader, found, continuation=None):
            difference = found / expected - 1
            close = abs(difference) <= options.tolerance
            verdict(close, f"{reader}: perplexity {found:.4f}, {difference * 100:+.4f} % from plain PyTorch")
            if continuation is not None:
                same = continuation == text
                what = f"the same {len(text)} greedy tokens" if same else repr(tokenizer.decode(prompt + continuation))
                verdict(same, f"{reader}: {what}")

        if options.gptq:
            common = ("--context", options.context, "--windows", options.windows, "--json")
            if not options.windows:
                common = ("--context", options.context, "--json")
            try:
                compare("gptq eval", run_gptq(options.gptq, "eval", folder, "--text", options.text, *common)["perplexity"])
                # The greedy tokens are gptq's own choice too, if both kinds of weights make it choose the same tokens.
                both = run_gptq(options.gptq, "compare", unpacked, folder, "--text", options.text, *common)["texts"][0]
                verdict(
                    both["mean_kl"] < 1e-6 and both["same_top"] > 0.9999,
                    f"gptq compare, unpacked here against packed: mean KL {both['mean_kl']:.2e}, "
                    f"same top token {both['same_top'] * 100:.3f} %",
                )
            except (RuntimeError, OSError, KeyError) as error:
                verdict(False, f"gptq: {error!r}")

    def load_transformers():
        if dequantizes:
            from transformers import CompressedTensorsConfig

            config = CompressedTensorsConfig(dequantize=True)
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=config)
        return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32)

    def load_gptqmodel():
        from gptqmodel import BACKEND, GPTQModel

        # The kernel that it would choose itself on a CPU, TorchFusedLinear, computes in bf16 and takes every zero for
        # the symmetric one; the plain kernel is loaded in fp16 only, which holds the scales exactly.
        return GPTQModel.load(str(folder), device="cpu", dtype=torch.float16, backend=BACKEND.GPTQ_TORCH).float()

    for reader, load in (("transformers", load_transformers), ("gptqmodel", load_gptqmodel)):
        if reader not in readers:
            continue
        try:
            model = load().eval()
            parts = ("qweight", "qzeros", "weight_scale", "quantization_scheme")
            kernels = ["none: dequantized"] if dequantizes else sorted({type(m).__name__ for m in model.modules() if any(hasattr(m, part) for part in parts)})
            verdict(bool(kernels), f"{reader}: loads, kernel {', '.join(kernels) or 'none: nothing is quantized'}")
            compare(reader, perplexity(model, ids, options.context, options.windows), greedy(model, prompt, options.tokens))
            del model
        except Exception as error:  # a reader may fail in any way; that is the finding
            verdict(False, f"{reader}: {type(error).__name__}: {str(error)[:500]}")
    print("all readers agree" if not failures else f"{failures} checks failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
