#!/usr/bin/env python3
"""Quantizes a model with another tool, from the same calibration ids and with its own default recipe, and writes a
folder that `gptq eval` reads: the rows of docs/benchmarks.md next to ours.

    bench/rivals.py MODEL OUT --tool gptqmodel --bits 4 --group-size 64 --calibration ids.jsonl

Tools: gptqmodel and gptaq (GPTQModel with its GPTAQ option), llm-compressor, optimum. Each line of the calibration file
is {"input_ids": [...]}; the sequences go in as they are. Of llm-compressor the folder holds plain weights, those of its
quantized model. Prints one JSON object; its cpu_seconds are of the whole process. Needs the tool and PyTorch; takes a GPU
where there is one."""

import argparse
import importlib.metadata
import json
import pathlib
import resource
import sys
import time

import torch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--tool", required=True, choices=["gptqmodel", "gptaq", "llm-compressor", "optimum"])
parser.add_argument("--bits", type=int, default=4)
parser.add_argument("--group-size", type=int, default=64)
parser.add_argument("--calibration", type=pathlib.Path, required=True)
parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="of the model [as stored]")
parser.add_argument("--threads", type=int, default=0, help="of PyTorch on a CPU [its own choice]")
options = parser.parse_args()
if options.threads:
    torch.set_num_threads(options.threads)

device = "cuda:0" if torch.cuda.is_available() else "cpu"
sequences = [json.loads(line)["input_ids"] for line in options.calibration.read_text().splitlines()]


def run_gptqmodel():
    from gptqmodel import GPTQModel, QuantizeConfig

    recipe = QuantizeConfig(bits=options.bits, group_size=options.group_size)
    if options.tool == "gptaq":
        from gptqmodel.quantization.config import GPTAQConfig

        recipe.gptaq = GPTAQConfig()
    model = GPTQModel.load(options.model, recipe, device=device, dtype=options.dtype)
    model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in sequences], batch_size=1)
    model.save(str(options.out))
    return "gptqmodel"


def run_llm_compressor():
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=options.dtype, device_map=device)
    weights = QuantizationArgs(num_bits=options.bits, type="int", symmetric=True, strategy="group",
                               group_size=options.group_size)
    recipe = GPTQModifier(config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
                          ignore=["lm_head"])
    rows = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            for ids in sequences]
    data = torch.utils.data.DataLoader(rows, batch_size=None, shuffle=False)
    oneshot(model=model, dataset=data, recipe=recipe, num_calibration_samples=len(sequences),
            max_seq_length=max(map(len, sequences)), shuffle_calibration_samples=False)
    save_plain(model)
    return "llmcompressor"


def run_optimum():
    from optimum.gptq import GPTQQuantizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=options.dtype, device_map=device)
    data = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            for ids in sequences]
    quantizer = GPTQQuantizer(bits=options.bits, group_size=options.group_size, dataset=data,
                              model_seqlen=max(map(len, sequences)))
    model = quantizer.quantize_model(model, AutoTokenizer.from_pretrained(options.model))
    quantizer.dataset = None  # tensors, which its configuration files cannot hold
    model.config.quantization_config = quantizer.to_dict()
    quantizer.save(model, str(options.out))
    return "optimum"


def save_plain(model):
    """The weights that the quantized linears compute with: each one a scale times a code."""
    from safetensors.torch import save_file

    tensors = {}
    for name, module in model.named_modules():
        scale = getattr(module, "weight_scale", None)
        if scale is None:
            continue
        weight, limit = module.weight.data.float(), 2 ** (options.bits - 1)
        scales = scale.data.float().repeat_interleave(weight.shape[1] // scale.shape[1], 1)
        codes = (weight / scales).round().clamp(-limit, limit - 1)
        tensors[name + ".weight"] = (codes * scales).cpu()
    for name, tensor in model.state_dict().items():
        plain = name.rpartition(".")[2] in ("weight", "bias")
        if plain and name not in tensors and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            tensors[name] = tensor.float().cpu().contiguous()
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((pathlib.Path(options.model) / "config.json").read_text())
    (options.out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2))
    for file in pathlib.Path(options.model).glob("tokenizer*"):
        (options.out / file.name).write_bytes(file.read_bytes())


start = time.time()
runs = {"llm-compressor": run_llm_compressor, "optimum": run_optimum}
package = runs.get(options.tool, run_gptqmodel)()
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"tool": options.tool, "version": importlib.metadata.version(package), "bits": options.bits,
                  "group_size": options.group_size, "device": device, "dtype": options.dtype, "seconds": round(time.time() - start, 1),
                  "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}),
      file=sys.stdout)
