#!/usr/bin/env python3
"""Makes the golden sources: folders with a few weights as each source format stores them (model.safetensors), and what
that format's own library reads from them (expected.safetensors).

    python make.py      (needs torch, transformers >= 5, safetensors, compressed-tensors, bitsandbytes; rewrites them all)

AWQ's packing has no library that runs without a GPU: its order is written out here, from awq/utils/packing_utils.py.
"""
import json
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors import (IntQuantizationCompressor, MXFP4PackedCompressor, NVFP4PackedCompressor,
                                            PackedQuantizationCompressor)
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

HERE = Path(__file__).resolve().parent


def write(name, quantization, stored, expected):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    config = {"model_type": "llama", "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({key: value.contiguous() for key, value in stored.items()}, folder / "model.safetensors")
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")


def mxfp4():
    stored, expected = {}, {}
    for name, shape in {"a.experts.gate_up_proj": (2, 6, 3, 16), "a.experts.down_proj": (2, 5, 1, 16)}.items():
        blocks = torch.randint(0, 256, shape, dtype=torch.uint8)
        scales = torch.randint(100, 140, shape[:3], dtype=torch.uint8)
        stored.update({name + "_blocks": blocks, name + "_scales": scales})
        expected[name] = convert_moe_packed_tensors(blocks, scales)
    write("mxfp4", {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, stored, expected)


def compressed(name, format, compressor, shapes, dtype=torch.bfloat16, zeros=False, activations=None, **weights):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(symmetric=not zeros, **weights))
    stored, expected = {}, {}
    for module, (out, into) in shapes.items():
        bits, size = weights["num_bits"], weights.get("group_size") or into
        state = {"weight": torch.randn(out, into).to(dtype)}
        if weights["type"] == "float":
            state["weight_scale"] = 2.0 ** torch.randint(-5, 3, (out, into // size)).to(torch.float32)
        else:
            state["weight_scale"] = (torch.rand(out, into // size) * 4 / 2**bits + 0.01).to(dtype)
        if zeros:
            state["weight_zero_point"] = torch.randint(-(2**bits) // 2, 2**bits // 2, (out, into // size),
                                                       dtype=torch.int8)
        if compressor is NVFP4PackedCompressor:
            state["weight_global_scale"] = torch.tensor([37.5])
            state["weight_scale"] = torch.rand(out, into // size) * 100 + 1
        packed = compressor.compress(state, scheme)
        read = compressor.decompress(packed, scheme)["weight"]
        stored.update({f"{module}.{part}": value for part, value in packed.items()})
        expected[module + ".weight"] = read.to(torch.bfloat16) if weights["type"] == "float" else read
    group = {"targets": ["Linear"], "weights": json.loads(scheme.weights.model_dump_json()),
             "input_activations": activations}
    write(name, {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}}, stored,
          expected)


def all_compressed():
    shapes = {"a.q_proj": (12, 96), "b.down_proj": (64, 32)}
    for bits in (3, 4, 8):
        compressed(f"packed-{bits}-bits", "pack-quantized", PackedQuantizationCompressor, shapes, num_bits=bits,
                   type="int", strategy="group", group_size=32)
        compressed(f"packed-{bits}-bits-zeros", "pack-quantized", PackedQuantizationCompressor, shapes, num_bits=bits,
                   type="int", strategy="group", group_size=32, zeros=True, dtype=torch.float16)
    compressed("packed-channels", "pack-quantized", PackedQuantizationCompressor, {"a": (8, 50)}, num_bits=4, type="int",
               strategy="channel")
    compressed("int8", "int-quantized", IntQuantizationCompressor, shapes, num_bits=8, type="int", strategy="channel",
               activations={"num_bits": 8, "type": "int", "dynamic": True})
    compressed("int8-zeros", "int-quantized", IntQuantizationCompressor, shapes, num_bits=8, type="int",
               strategy="group", group_size=16, zeros=True)
    compressed("packed-mxfp4", "mxfp4-pack-quantized", MXFP4PackedCompressor, shapes, num_bits=4, type="float",
               strategy="group", group_size=32)
    compressed("packed-nvfp4", "nvfp4-pack-quantized", NVFP4PackedCompressor, shapes, num_bits=4, type="float",
               strategy="tensor_group", group_size=16)


def bitsandbytes():
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            stored, expected = {}, {}
            for module, (out, into) in {"a.q_proj": (10, 64), "b": (48, 512)}.items():
                weight = torch.randn(out, into).to(torch.bfloat16)
                codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
                stored[module + ".weight"] = codes
                for part, value in state.as_dict(packed=True).items():
                    stored[f"{module}.weight.{part}"] = value
                expected[module + ".weight"] = bnb.dequantize_4bit(codes, state)
            write(f"bitsandbytes-{kind}" + ("-nested" if nested else ""),
                  {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}, stored, expected)
    weight = torch.randn(12, 40).to(torch.float16)
    codes, scales, _ = bnb.int8_vectorwise_quant(weight)
    write("bitsandbytes-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True},
          {"a.weight": codes, "a.SCB": scales, "a.weight_format": torch.tensor(0, dtype=torch.uint8)},
          {"a.weight": bnb.int8_vectorwise_dequant(codes, scales).to(torch.float16)})


def awq():
    stored, expected = {}, {}
    for module, (out, into, size) in {"a.q_proj": (24, 64, 32), "b.down_proj": (8, 96, 96)}.items():
        codes = torch.randint(0, 16, (into, out), dtype=torch.int64)
        zeros = torch.randint(0, 16, (into // size, out), dtype=torch.int64)
        scales = (torch.rand(into // size, out) / 10 + 0.01).to(torch.float16)

        def pack(values):
            words = torch.zeros(values.shape[0], out // 8, dtype=torch.int64)
            for nibble, column in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
                words |= values[:, column::8] << (4 * nibble)
            return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)

        stored.update({module + ".qweight": pack(codes), module + ".qzeros": pack(zeros), module + ".scales": scales})
        wide = [values.repeat_interleave(size, 0) for values in (zeros, scales.float())]
        expected[module + ".weight"] = ((codes - wide[0]) * wide[1]).T.to(torch.float16)
    write("awq", {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}, stored,
          expected)


torch.manual_seed(26)
mxfp4()
all_compressed()
bitsandbytes()
awq()
