"""Models in memory (torch, transformers): the folder that a model comes from, and loading a folder. Nothing here is
imported before a model is handed over."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Iterator, Mapping

_LONGEST = 4028  # Optimum's limit of model_seqlen
_POSITIONS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
_NEEDED = ("torch", "transformers", "optimum", "gptqmodel")

logger = logging.getLogger("gptq_cpp")


def default_length(folder: str) -> int:
    """Tokens of a calibration sequence, by Optimum's rule: the model's positions, 4028 at most; 2048 where no key says
    how many there are."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # quantize() says what is wrong with the folder
        return 2048
    parts = [config, config.get("text_config") or {}]
    found = [part[key] for part in parts for key in _POSITIONS if isinstance(part.get(key), int)]
    return min(_LONGEST, found[0]) if found else 2048


def device_map_of(model: Any) -> dict[str, Any] | None:
    """hf_device_map of a model that accelerate has placed; None for others."""
    placed = getattr(model, "hf_device_map", None)
    if not placed:
        return None
    return {name: device if isinstance(device, int) else str(device) for name, device in placed.items()}


def model_class_of(model: Any) -> Any:
    """The class that loads such a model; None: the one that config.json names."""
    return type(model) if hasattr(type(model), "from_pretrained") else None


@contextlib.contextmanager
def source_folder(model: Any, tokenizer: Any, work_dir: Any) -> Iterator[str]:
    """The folder with the model's weights: a path as it is; a model's own folder where its weights are untouched, else
    a temporary one that it is saved to."""
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        yield path if os.path.isdir(path) else _cached_folder(path) or path
        return
    if not hasattr(model, "save_pretrained"):
        raise TypeError(f"quantize_model(): give a model of transformers or a folder, not {type(model).__name__}")
    name = getattr(model, "name_or_path", "") or ""
    folder = name if os.path.isdir(name) else _cached_folder(name)
    if folder and _is_untouched(model, folder):
        logger.info("the weights of %s are read from %s", type(model).__name__, folder)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gptq-", dir=work_dir) as saved:
        logger.info("%s is saved to %s, as no folder has its weights", type(model).__name__, saved)
        model.save_pretrained(saved)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(saved)
        yield saved


def load_model(
    folder: Path,
    class_: Any = None,
    like: Any = None,
    backend: str = "auto",
    quantization: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The transformers model of a quantized folder.

    like: a model in memory whose device it goes to, where no device_map is given. Raises ImportError that names the
    packages that are missing.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f"loading needs {', '.join(_NEEDED)}: pip install {' '.join(missing)}")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    device_map = options.get("device_map")
    if device_map is None:
        options["device_map"] = _device_of(like, torch)
    elif isinstance(device_map, str) and device_map in _AUTOMATIC and not _has_accelerator(torch):
        options["device_map"] = {"": "cpu"}  # GPTQModel takes kernels of GPUs for a map without devices
    config = AutoConfig.from_pretrained(folder)
    if quantization is not None and not getattr(config, "quantization_config", None):
        config.quantization_config = dict(quantization)
    if backend != "auto":
        config.quantization_config = {**_as_dict(config.quantization_config), "backend": backend}
    return (class_ or AutoModelForCausalLM).from_pretrained(folder, config=config, **options).eval()


def _as_dict(config: Any) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else config.to_dict()


def _has_accelerator(torch: Any) -> bool:
    return torch.cuda.is_available() or (hasattr(torch, "xpu") and torch.xpu.is_available())


def _device_of(model: Any, torch: Any) -> Any:
    placed = getattr(model, "hf_device_map", None)
    if placed:
        return dict(placed)
    if hasattr(model, "parameters"):
        device = next(model.parameters()).device
        return {"": "cpu" if device.type == "meta" else str(device)}
    if torch.cuda.is_available():
        logger.info("The device_map was not initialized. Setting device_map to {'': torch.cuda.current_device()}.")
        return {"": torch.cuda.current_device()}
    return {"": "cpu"}


def _cached_folder(name: str) -> str | None:
    """The folder of a name such as org/model in the cache of the Hub, where it is complete there."""
    if not name or find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, local_files_only=True)
    except Exception:  # of many kinds: no such name, nothing cached, a path
        return None


def _is_untouched(model: Any, folder: str) -> bool:
    """Whether every tensor of the folder's safetensors is in the model, with the same values."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files or find_spec("safetensors") is None:
        return False
    import torch
    from safetensors import safe_open

    state = model.state_dict()
    untouched = set(state)
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                mine = state.get(name)
                if mine is None or mine.is_meta:
                    return False
                stored = tensors.get_tensor(name)
                if mine.shape != stored.shape or not torch.equal(mine.cpu(), stored.to(mine.dtype)):
                    return False
                untouched.discard(name)
    # Tied tensors are stored once: what is left shares memory with what was found.
    found = {state[name].data_ptr() for name in state if name not in untouched}
    return all(state[name].data_ptr() in found for name in untouched)
