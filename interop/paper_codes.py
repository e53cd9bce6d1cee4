#!/usr/bin/env python3
"""Do the codes of `gptq quantize --preset paper` agree with the paper's loop in double precision?

  gptq quantize MODEL OUT --preset paper --group-size 64 --calibration CALIBRATION.jsonl --report REPORT.json
  paper_codes.py MODEL CALIBRATION.jsonl OUT [--report REPORT.json]

Runs the first block of a Llama model with transformers, quantizes its linears with the paper's loop (one Hessian each
for q,k,v | o | gate,up | down, each from inputs that the quantized linears before it produce), and compares codes and
losses, linear by linear. CALIBRATION.jsonl holds {"input_ids": [...]} lines. Exits with 1 when fewer than 99.5 % of the
codes are equal or a loss differs by more than 0.1 %.

The linears before are quantized with gptq's codes, so that each linear is judged by itself. With --own-chain they take
the loop's codes: then one code that fell on the other side of a tie changes the inputs of all later steps, scales move
to the next fp16 number, and shares drop from step to step although both chains are right.
"""
import argparse
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM

from check import dequantize, read_tensors, unstream

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "golden" / "gptq"))
import paper_gptq

STEPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("calibration", type=pathlib.Path)
    parser.add_argument("quantized", type=pathlib.Path)
    parser.add_argument("--report", type=pathlib.Path, help="the report of gptq quantize, for the losses")
    parser.add_argument("--double", action="store_true", help="run the block in fp64, not fp32")
    parser.add_argument("--own-chain", action="store_true", help="later inputs from the loop's codes, not gptq's")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    config = json.loads((options.quantized / "quantize_config.json").read_text())
    bits, group_size, sym = config["bits"], config["group_size"], config["sym"]
    percent = config.get("damp_percent", 0.01)
    tensors = read_tensors(options.quantized)
    report = json.loads(options.report.read_text()) if options.report else {"linears": []}
    losses = {linear["name"]: linear["loss"] for linear in report["linears"]}

    dtype = torch.float64 if options.double else torch.float32
    model = AutoModelForCausalLM.from_pretrained(options.model, num_hidden_layers=1, dtype=dtype).model.eval()
    block = model.layers[0]
    sequences = [json.loads(line)["input_ids"] for line in options.calibration.read_text().splitlines() if line]
    print(f"{bits} bits, group {group_size}, sym {sym}, damping {percent}, {sum(map(len, sequences))} tokens, block in {dtype}")
    print(f"{'linear':20} {'equal codes':>12} {'equal scales':>13} {'paper loss':>12} {'gptq loss':>12} {'difference':>11}")

    equal = total = 0
    worst = 0.0
    for step in STEPS:
        first = block.get_submodule(step[0])
        H, tokens = torch.zeros(first.in_features, first.in_features, dtype=torch.float64), 0

        def collect(module, arguments):
            nonlocal H, tokens
            x = arguments[0].flatten(0, -2).double()
            H += x.T @ x
            tokens += x.shape[0]

        hook = first.register_forward_pre_hook(collect)
        with torch.inference_mode():
            for sequence in sequences:
                model(input_ids=torch.tensor([sequence]), use_cache=False)
        hook.remove()

        for name in step:
            linear, prefix = block.get_submodule(name), f"model.layers.0.{name}"
            result = paper_gptq.paper(linear.weight.detach(), H * (2 / tokens), bits, group_size, sym, percent=percent)
            if options.own_chain:
                quantized = result.scales[:, result.g_idx] * (result.codes - result.zeros[:, result.g_idx])
            else:
                quantized = dequantize(tensors, prefix, config["checkpoint_format"])
            linear.weight.data = quantized.to(dtype)

            codes = unstream(tensors[prefix + ".qweight"].numpy(), linear.in_features, bits).T
            same = (codes == result.codes).sum().item()
            scales = (tensors[prefix + ".scales"].double().T == result.scales).double().mean().item()
            equal, total = equal + same, total + codes.numel()
            line = f"{name:20} {same / codes.numel() * 100:10.3f} % {scales * 100:11.3f} % {result.loss:12.6g}"
            if prefix in losses:
                difference = losses[prefix] / result.loss - 1
                worst = max(worst, abs(difference))
                line += f" {losses[prefix]:12.6g} {difference * 100:+9.4f} %"
            print(line, flush=True)

    passed = equal / total >= 0.995 and worst <= 1e-3
    print(f"{'PASS' if passed else 'FAIL'}  {equal / total * 100:.3f} % of {total} codes are equal", end="")
    print(f", losses within {worst * 100:.4f} %" if losses else "")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
