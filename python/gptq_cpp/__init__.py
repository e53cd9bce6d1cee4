"""GPTQ quantization of Hugging Face causal language models, natively: neither PyTorch nor a GPU is needed.

    import gptq_cpp as gptq

    report = gptq.quantize("SmolLM2-135M", "SmolLM2-135M-4bit", recipe=gptq.Recipe(bits=4, group_size=64))
    gptq.evaluate("SmolLM2-135M-4bit", texts=["test.txt"]).perplexity

Users of Optimum change one import: ``from gptq_cpp import GPTQQuantizer, load_quantized_model``.
docs/python.md describes both.
"""

from .errors import (
    Cancelled,
    DeviceError,
    Error,
    ExistsError,
    GptqWarning,
    InputError,
    OutOfMemory,
    UnsupportedError,
)
from .jobs import (
    compare,
    devices,
    evaluate,
    generate,
    inspect,
    plan,
    quantize,
    tokenize,
)
from .native import __version__
from .progress import Progress
from .recipe import PRESETS, Recipe

__all__ = [
    "Cancelled",
    "DeviceError",
    "Error",
    "ExistsError",
    "GPTQQuantizer",
    "GptqWarning",
    "InputError",
    "OutOfMemory",
    "PRESETS",
    "Progress",
    "Recipe",
    "UnsupportedError",
    "__version__",
    "compare",
    "devices",
    "evaluate",
    "generate",
    "inspect",
    "load_quantized_model",
    "plan",
    "quantize",
    "tokenize",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .optimum import GPTQQuantizer, load_quantized_model


def __getattr__(name: str):
    if name in ("GPTQQuantizer", "load_quantized_model"):  # read when somebody asks for them
        from . import optimum

        return getattr(optimum, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
