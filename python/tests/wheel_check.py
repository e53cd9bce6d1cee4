"""The wheel in an environment with nothing else: quantize the demo that it brings from a Python list of ids, evaluate,
generate, plot. No test: scripts/wheel runs it."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

began = time.perf_counter()
import gptq_cpp as gptq  # noqa: E402

print(f"import gptq_cpp: {time.perf_counter() - began:.3f} s, version {gptq.__version__}")
for name in ("torch", "numpy", "transformers"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed"

demo = Path(gptq.__file__).parent / "share" / "gptq" / "demo"
tokens = gptq.tokenize(demo / "model", (demo / "calibration.txt").read_text(encoding="utf-8"))
ids = [tokens[256 * i : 256 * (i + 1)] for i in range(64)]
with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "demo-4bit"
    report = gptq.quantize(
        demo / "model", out, recipe=gptq.Recipe(bits=4, group_size=64), calibration=ids, sequence_length=256
    )
    print(
        f"quantize: {len(report.linears)} linears, {report.bits_per_weight:.3f} bits per weight, {report.seconds:.1f} s"
    )
    heldout = [(demo / "heldout.txt").read_text(encoding="utf-8")]
    for model in (demo / "model", out):
        found = gptq.evaluate(model, texts=heldout, context=256, windows=32)
        print(f"evaluate {model.name}: perplexity {found.perplexity:.4f} over {found.predicted_tokens} tokens")
    print(f"compare: KL {gptq.compare(demo / 'model', out, texts=heldout, context=256, windows=32).kl:.5f}")
    print("generate:", repr(gptq.generate(out, "Once upon a time", tokens=24)))
    report.plot().save("report.svg")
    print(f"plot: report.svg, {Path('report.svg').stat().st_size} bytes")
