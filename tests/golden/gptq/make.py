#!/usr/bin/env python3
"""Makes gptq.safetensors and cases.json beside it: GPTQ problems and their answers in double precision.

  python3 make.py        needs torch and safetensors; the files are the same on every run of one PyTorch version

cases.json lists the cases: `recipe` is paper or default; `dead` columns of the inputs are to be set to zero; `loss` is
the sum of (w - q)^2 / (2 d^2) with H = 2/N sum x x'. Case NAME has in gptq.safetensors the weights NAME.W [rows, cols]
f32 and the answers NAME.codes [rows, cols] u8, NAME.scales [rows, groups] f32 (fp16 values), NAME.zeros [rows, groups]
u8, NAME.g_idx and NAME.order [cols] i32 (order: the column solved first, second, ...). The inputs of every case are the
first `cols` columns of X [N, 512] f16, whose values are exact in f32.
"""
import json
import pathlib

import torch
from safetensors.torch import save_file

import paper_gptq

TOKENS = 160
CASES = [
    # name, recipe, rows, cols, bits, group_size, sym, desc_act, dead columns
    ("four_bits", "paper", 24, 160, 4, 32, True, False, []),
    ("one_group_asymmetric", "paper", 17, 96, 3, -1, False, False, []),
    ("two_bits", "paper", 8, 256, 2, 64, True, False, []),
    ("groups_across_blocks", "paper", 12, 192, 8, 96, True, False, []),
    ("group_beyond_a_block", "paper", 6, 512, 4, 256, True, False, []),
    ("asymmetric", "paper", 16, 128, 4, 16, False, False, []),
    ("dead_columns", "paper", 12, 128, 4, 32, True, False, [3, 64, 65, 127]),
    ("dead_group_asymmetric", "paper", 8, 64, 3, 16, False, False, list(range(16, 32))),
    ("desc_act", "paper", 20, 128, 4, 32, True, True, []),
    ("desc_act_dead_columns", "paper", 10, 160, 3, 32, False, True, [0, 77]),
    ("default_four_bits", "default", 24, 160, 4, 32, True, False, []),
    ("default_three_bits", "default", 16, 192, 3, 64, True, False, []),
    ("default_two_bits", "default", 8, 128, 2, 32, True, False, []),
    ("default_eight_bits", "default", 8, 128, 8, 128, True, False, []),
    ("default_asymmetric", "default", 12, 128, 4, 32, False, False, []),
    ("default_one_group", "default", 9, 96, 4, -1, True, False, []),
    ("default_dead_columns", "default", 12, 128, 4, 32, True, False, [3, 64, 65, 127]),
]
# The same, and what else the recipe has: signed scales, corrected targets, stages that follow the columns.
OPTIONS = [
    ("signed", 16, 128, 3, 32, True, [5], {"signed": True}),
    ("signed_one_group", 7, 96, 4, -1, True, [], {"signed": True}),
    ("corrected", 12, 128, 4, 32, True, [7], {"alpha": 0.5}),
    ("sweeps", 12, 128, 3, 32, True, [9], {"signed": True, "stages": "c3"}),
    ("refit", 12, 128, 3, 32, True, [9], {"signed": True, "stages": "r"}),
    ("everything", 10, 128, 2, 16, True, [11, 12], {"signed": True, "alpha": 0.25, "stages": "r c2 r c2 r"}),
    ("asymmetric_refined", 10, 128, 3, 32, False, [], {"stages": "c1 r"}),
]


def inputs(generator):
    """Correlated columns of very different sizes, with a common direction, as a network's activations have."""
    noise = torch.randn(TOKENS, 512, generator=generator)
    mixed = noise @ torch.randn(512, 512, generator=generator) / 512**0.5
    common = torch.randn(TOKENS, 1, generator=generator) * torch.randn(512, generator=generator)
    size = torch.exp(torch.randn(512, generator=generator))
    return ((noise + mixed + common) * size).half()


def main():
    here = pathlib.Path(__file__).parent
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20221031)
    X = inputs(generator)
    tensors, cases = {"X": X}, []
    Xo = torch.zeros(0)  # the inputs of the original model, drawn behind what the cases without them draw
    cases_with_options = [(*case, {}) for case in CASES]
    for name, rows, cols, bits, group_size, sym, dead, options in OPTIONS:
        cases_with_options.append((name, "default", rows, cols, bits, group_size, sym, False, dead, options))
    for name, recipe, rows, cols, bits, group_size, sym, desc_act, dead, options in cases_with_options:
        W = (torch.randn(rows, cols, generator=generator) * 0.1).float()
        live = X[:, :cols].double().clone()
        live[:, dead] = 0
        H = paper_gptq.hessian(live)
        solve = paper_gptq.paper if recipe == "paper" else paper_gptq.default
        arguments = {"desc_act": desc_act} if recipe == "paper" else dict(options)
        if "alpha" in options:
            if len(Xo) == 0:
                Xo = (X[:, :128] * (1 + 0.2 * torch.randn(TOKENS, 128, generator=generator))).half()
            original = Xo[:, :cols].double().clone()
            original[:, dead] = 0
            arguments["cross"] = 2 / TOKENS * (original - live).T @ live
        result = solve(W, H, bits, group_size, sym, **arguments)
        tensors |= {
            f"{name}.W": W,
            f"{name}.codes": result.codes,
            f"{name}.scales": result.scales.float(),
            f"{name}.zeros": result.zeros.byte(),
            f"{name}.g_idx": result.g_idx.int(),
            f"{name}.order": result.order.int(),
        }
        cases.append(
            {
                "name": name,
                "recipe": recipe,
                "rows": rows,
                "cols": cols,
                "tokens": TOKENS,
                "bits": bits,
                "options": options,
                "group_size": group_size,
                "sym": sym,
                "desc_act": desc_act,
                "dead": dead,
                "damp_percent": 0.01,
                "loss": result.loss,
            }
        )
    tensors["Xo"] = Xo
    save_file({key: value.contiguous() for key, value in tensors.items()}, here / "gptq.safetensors")
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    (here / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
