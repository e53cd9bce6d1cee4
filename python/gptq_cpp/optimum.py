"""Optimum's face: `GPTQQuantizer` and `load_quantized_model` with the arguments of Optimum 2.3, on the native engine.

Each argument is honoured, accepted without effect (one warning names those that were given), or refused in one
sentence; docs/python.md has the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Mapping

from .calibration import items_of, token_sequences
from .data_sets import named_sequences
from .errors import GptqWarning, InputError
from .in_memory import (
    default_length,
    device_map_of,
    load_model,
    model_class_of,
    source_folder,
)
from .jobs import quantize, tokenize
from .native import RECIPE_KEYS, RUN_KEYS, __version__, unknown_keyword
from .progress import ProgressOption
from .recipe import Recipe
from .reports import Report

# Arguments of Optimum, transformers' GPTQConfig and GPTQModel that mean nothing to a program that knows the families,
# with the values that go without saying.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "block_name_to_quantize": (None,),
    "module_name_preceding_first_block": (None,),
    "cache_block_outputs": (True,),
    "pad_token_id": (None,),
    "backend": (None, "auto"),
    "use_cuda_fp16": (False, True),
    "use_exllama": (None,),
    "disable_exllama": (None,),
    "exllama_config": (None,),
    "max_input_length": (None,),
    "pack_impl": (None, "auto"),
    "pack_dtype": (None, "int32"),
    "compute_device_filter": (None,),
    "calibration_data_device": (None,),
    "gc_mode": (None,),
    "telemetry": (None, False),
    "auto_forward_data_parallel": (True,),
    "dense_vram_strategy": (None,),
    "moe_vram_strategy": (None,),
    "wait_for_submodule_finalizers": (None, False),
    "offload_to_disk": (False, True),
    "offload_to_disk_path": (None,),
    "damp_auto_increment": (None,),
    "fallback": (None,),
    "mock_quantization": (False,),
    "hessian": (None,),
    "device": (None,),
}
_WHY_WITHOUT_EFFECT = {
    "damp_auto_increment": "damping rises by itself where it must, and the report says so",
    "fallback": "experts that see few tokens are calibrated with all of them, and the report says so",
    "pad_token_id": "sequences are never padded",
}
_REFUSED = {
    "rotation": "rotated models are not made: leave rotation out",
    "smooth": "smoothing changes the scales that GPTQ finds: leave smooth out",
    "smoother": "smoothing changes the scales that GPTQ finds: leave smoother out",
    "preprocessors": "weights are quantized as they are: leave preprocessors out",
    "adapter": "adapters such as EoRA are not made: leave adapter out",
    "foem": "FOEM is not implemented: gptaq=True and targets='corrected' are what there is",
    "embed_quant_config": "embeddings are not quantized: leave embed_quant_config out",
    "embed_quant_mode": "embeddings are not quantized: leave embed_quant_mode out",
    "trust_remote_code": "code of a model's folder is never run: families are built in (docs/families.md)",
    "checkpoint": "use resume=True, which continues a run from its last whole block",
    "moe": "use expert_tokens or moe_calibrate_all_experts",
}
_OWN = tuple(key for key in (*RECIPE_KEYS, *RUN_KEYS) if key not in ("checkpoint_format", "overwrite"))


class QuantizedModel:
    """A quantized folder, in the place of a transformers model where that cannot be loaded."""

    def __init__(self, folder: Path) -> None:
        self.gptq_folder = folder

    def load(self, **options: Any) -> Any:
        """The transformers model of the folder; options are those of `from_pretrained`."""
        return load_model(self.gptq_folder, **options)

    def __repr__(self) -> str:
        return f"QuantizedModel({str(self.gptq_folder)!r})"


class GPTQQuantizer:
    """Quantizes a transformers model, or a model's folder, as Optimum's class of this name does.

    bits: 2, 3, 4 or 8.
    dataset: a list of str, each a sequence; a list of token ids, or of dicts with "input_ids" (and "attention_mask",
        which leaves padded positions out); the name of a data set, "wikitext2", "c4" or "c4-new" (by the `datasets`
        package, the slices that Optimum takes); a file. None: the built-in text.
    group_size: inputs that share a scale; -1: all.
    damp_percent: damping, a share of the Hessian's mean diagonal.
    desc_act: groups in the order of columns.
    act_group_aware: True: columns in GPTQModel's group-aware order. Not given or False: by falling diagonal, which is
        measured to be better and gives the same kind of folder.
    sym: False: zero points of their own, which are stored as gptq_v2.
    true_sequential: False: all Hessians of a block before any rounding.
    model_seqlen: tokens of a sequence at most. None: the positions of the model, 4028 at most.
    batch_size: sequences at a time. 1, Optimum's default, leaves the choice to the program.
    modules_in_block_to_quantize: lists of names in a block; None: all.
    format: "gptq", or "gptq_v2".
    meta: entries for `meta` in the config of the output.
    block_name_to_quantize, module_name_preceding_first_block, cache_block_outputs, pad_token_id, backend: without
        effect.

    Own keywords: preset, recipe_file, progress (see `gptq_cpp.quantize`), work_dir (where folders wait for `save`), and
    every option of docs/options.md. static_groups, lm_head, dynamic, gptaq and mse are as in GPTQModel.

    Raises TypeError for a keyword that is not known, InputError (a ValueError) for a value out of its range.
    """

    quant_method = "gptq"

    def __init__(
        self,
        bits: int,
        dataset: Any = None,
        group_size: int = 128,
        damp_percent: float = 0.1,
        desc_act: bool = False,
        act_group_aware: bool | None = None,
        sym: bool = True,
        true_sequential: bool = True,
        model_seqlen: int | None = None,
        block_name_to_quantize: str | None = None,
        module_name_preceding_first_block: list[str] | None = None,
        batch_size: int = 1,
        pad_token_id: int | None = None,
        cache_block_outputs: bool = True,
        modules_in_block_to_quantize: list[list[str]] | None = None,
        format: str = "gptq",
        meta: Mapping[str, Any] | None = None,
        backend: str | None = None,
        *,
        preset: str = "default",
        recipe_file: str | os.PathLike[str] | None = None,
        progress: ProgressOption = None,
        work_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self.bits = bits
        self.dataset = dataset
        self.group_size = group_size
        self.damp_percent = damp_percent
        self.desc_act = desc_act
        self.act_group_aware = bool(act_group_aware)
        self.sym = sym
        self.true_sequential = true_sequential
        self.model_seqlen = model_seqlen
        self.batch_size = batch_size
        self.modules_in_block_to_quantize = modules_in_block_to_quantize
        self.format = str(getattr(format, "value", format)).lower()
        self.meta = dict(meta) if meta is not None else None
        self.preset = preset
        self.recipe_file = recipe_file
        self.progress = progress
        self.work_dir = work_dir
        self.report: Report | None = None
        self._folders: list[tempfile.TemporaryDirectory[str]] = []  # removed with this object
        self._last: Path | None = None
        self._check_ranges()
        ignored = {
            "block_name_to_quantize": block_name_to_quantize,
            "module_name_preceding_first_block": module_name_preceding_first_block,
            "cache_block_outputs": cache_block_outputs,
            "pad_token_id": pad_token_id,
            "backend": backend,
        }
        self._own = self._sort(ignored, options)
        self._recipe()  # raises for what is wrong with it

    def _check_ranges(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise InputError(f"bits {self.bits}: the GPTQ format holds 2, 3, 4 or 8", option="bits")
        if self.group_size != -1 and not self.group_size > 0:
            raise InputError(
                f"group_size {self.group_size}: give a positive number, or -1 for all inputs", option="group_size"
            )
        if not 0 < self.damp_percent < 1:
            raise InputError(
                f"damp_percent {self.damp_percent}: it is a share of the mean diagonal, more than 0 and less than 1",
                option="damp_percent",
            )

    def _sort(self, ignored: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """The options of the program among the keywords. Refuses those that cannot be met, and warns once of those
        without effect."""
        own: dict[str, Any] = {}
        method = options.pop("quant_method", options.pop("method", "gptq"))
        method = str(getattr(method, "value", method)).lower()
        if method not in ("gptq", "rtn"):
            raise InputError(f"quant_method {method}: there are gptq and rtn", option="quant_method")
        if method == "rtn":
            own["method"] = "rtn"
        if "checkpoint_format" in options:
            self.format = str(options.pop("checkpoint_format")).lower()
        for key, value in options.items():
            if key == "gptaq":
                own.update(_gptaq_options(value))
            elif key == "mse":
                own.update({"scale_search": "mse"} if value else {})
            elif key in _OWN:
                own[key] = value
            elif key in _REFUSED:
                if value:
                    raise InputError(f"{key}: {_REFUSED[key]}", option=key)
            elif key in _WITHOUT_EFFECT:
                ignored[key] = value
            else:
                known = [*_OWN, *_WITHOUT_EFFECT, *_ARGUMENTS, "gptaq", "mse", "preset", "recipe_file", "progress"]
                raise unknown_keyword("GPTQQuantizer", key, known)
        given = [key for key, value in ignored.items() if not _is_usual(key, value)]
        if given:
            reasons = [f"{key}: {_WHY_WITHOUT_EFFECT[key]}" for key in given if key in _WHY_WITHOUT_EFFECT]
            text = f"without effect here: {', '.join(given)}" + "".join(f"; {reason}" for reason in reasons)
            warnings.warn(text, GptqWarning, stacklevel=3)
        return own

    def _recipe(self) -> Recipe:
        options: dict[str, Any] = {
            "bits": self.bits,
            "group_size": self.group_size,
            "damp_percent": self.damp_percent,
            "sym": self.sym,
            "true_sequential": self.true_sequential,
            "desc_act": self.desc_act,
            "modules_in_block_to_quantize": self.modules_in_block_to_quantize,
            # Zero points need gptq_v2: "auto" is gptq with sym, and that without.
            "checkpoint_format": "auto" if self.format == "gptq" and not self.sym else self.format,
        }
        if self.act_group_aware and not self.desc_act:
            options["order"] = "group-aware"
        own = {key: value for key, value in self._own.items() if key in RECIPE_KEYS}
        if own.get("average_bits"):
            del options["bits"]
        return Recipe(self.preset, file=self.recipe_file, **{**options, **own})

    def quantize_model(self, model: Any, tokenizer: Any = None) -> Any:
        """Quantizes a transformers model (which stays as it is), or the folder of one.

        model: a path; or a model in memory, whose folder is read where its weights are those of the folder, else it is
            saved to a temporary one first. Its hf_device_map says where modules compute; a map with "disk" is refused.
        tokenizer: an object of transformers or its name, for texts; None: the tokenizer of the folder.

        Returns the quantized model as transformers loads it, on the device that a model in memory was on; where it
        cannot (torch, transformers, optimum and gptqmodel are needed), a `QuantizedModel` with the folder. `report` has
        the measurements.

        Raises InputError, DeviceError and KeyboardInterrupt as `gptq_cpp.quantize` does.
        """
        holder = tempfile.TemporaryDirectory(prefix="gptq-", dir=self.work_dir)
        out = Path(holder.name) / "model"
        options = {key: value for key, value in self._own.items() if key in RUN_KEYS}
        device_map = device_map_of(model)
        if device_map is not None:
            options.setdefault("device_map", device_map)
        options.setdefault("batch_size", self.batch_size if self.batch_size != 1 else None)
        options.setdefault("max_shard_size", "10GB")
        with source_folder(model, tokenizer, self.work_dir) as folder:
            length = self.model_seqlen or default_length(folder)
            options.setdefault("sequence_length", length)
            calibration = self._calibration(folder, tokenizer, length)
            if isinstance(calibration, list):
                options.setdefault("samples", len(calibration))
            self.report = quantize(folder, out, self._recipe(), calibration, progress=self.progress, **options)
        _merge_meta(out, self.meta)
        self._folders.append(holder)
        self._last = out
        try:
            loaded = load_model(out, class_=model_class_of(model), like=model)
        except ImportError as error:
            if not isinstance(model, (str, os.PathLike)):
                warnings.warn(f"the quantized model is saved but not loaded: {error}", GptqWarning, stacklevel=2)
            return QuantizedModel(out)
        loaded.gptq_folder = out
        return loaded

    def _calibration(self, folder: str, tokenizer: Any, length: int) -> Any:
        data = self.dataset
        if data is None or isinstance(data, os.PathLike):
            return data
        if isinstance(data, str):
            if os.path.exists(data) or data.endswith((".txt", ".json", ".jsonl", ".csv", ".tsv", ".gz")):
                return data
            return named_sequences(data, _encoder(folder, tokenizer), length)
        items = items_of(data, "dataset")
        if all(isinstance(item, str) for item in items):
            encode = _encoder(folder, tokenizer)
            return [encode(text) for text in items]
        return token_sequences(items, "dataset")

    def save(
        self,
        model: Any,
        save_dir: str | os.PathLike[str],
        max_shard_size: str | int = "10GB",
        safe_serialization: bool = True,
    ) -> None:
        """Puts the folder of a model that `quantize_model` returned at `save_dir`; other files there stay.

        The weights are written already: max_shard_size is met where the files are not larger, else a warning says so
        (give it to GPTQQuantizer). safe_serialization=False is refused. The files move there; a second `save` copies
        them.
        """
        if not safe_serialization:
            raise InputError("safe_serialization: weights are written as safetensors only", option="safe_serialization")
        folder = getattr(model, "gptq_folder", self._last)
        if folder is None or not Path(folder).is_dir():
            raise InputError("save: there is no quantized model yet: call quantize_model first", option="model")
        folder, target = Path(folder), Path(save_dir)
        from_temporary = any(folder.parent == Path(holder.name) for holder in self._folders)
        largest = max(file.stat().st_size for file in folder.glob("*.safetensors"))
        if largest > _bytes_of(max_shard_size):
            text = f"max_shard_size {max_shard_size}: a file has {largest} bytes; give max_shard_size to GPTQQuantizer"
            warnings.warn(text, GptqWarning, stacklevel=2)
        if target.resolve() == folder.resolve():
            return
        if from_temporary and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, target)
        else:
            shutil.copytree(folder, target, dirs_exist_ok=True)
            if from_temporary:
                shutil.rmtree(folder)
        if from_temporary:
            self._last = target if self._last == folder else self._last
            with contextlib.suppress(AttributeError):
                model.gptq_folder = target

    def to_dict(self) -> dict[str, Any]:
        """The arguments by name, as Optimum's to_dict has them; own keywords too. The dataset is in it only if it is a
        name."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _ARGUMENTS}
        values["dataset"] = self.dataset if isinstance(self.dataset, str) else None
        values["quant_method"] = self.quant_method
        values["meta"] = dict(self.meta or {})
        values["meta"].setdefault("quantizer", [f"gptq.cpp:{__version__}"])
        return {**values, **self._own}

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> GPTQQuantizer:
        """A quantizer with these arguments: those of `to_dict`, of Optimum's, or of a quantize_config.json."""
        return cls(**config_dict)

    def convert_model(self, model: Any, **kwargs: Any) -> Any:
        """Refused: layers are replaced by transformers, when it loads a folder."""
        raise InputError(
            "convert_model: load the folder with load_quantized_model or from_pretrained instead", option="model"
        )


_ARGUMENTS = (
    "bits",
    "dataset",
    "group_size",
    "damp_percent",
    "desc_act",
    "act_group_aware",
    "sym",
    "true_sequential",
    "modules_in_block_to_quantize",
    "format",
    "meta",
    "model_seqlen",
    "batch_size",
)


def load_quantized_model(
    model: Any,
    save_folder: str | os.PathLike[str],
    backend: str = "auto",
    quant_config_name: str = "quantize_config.json",
    state_dict_name: str | None = None,
    device_map: Any = None,
    max_memory: Mapping[Any, Any] | None = None,
    no_split_module_classes: Any = None,
    offload_folder: str | None = None,
    offload_buffers: bool | None = None,
    offload_state_dict: bool = False,
) -> Any:
    """The transformers model of a quantized folder, which needs torch, transformers, optimum and gptqmodel.

    model: a model of the class to be loaded, perhaps empty, or None: the class that config.json names.
    backend: a kernel of GPTQModel. quant_config_name: read where config.json does not say how the folder is quantized.
    device_map, max_memory, offload_folder, offload_buffers: those of `from_pretrained`; None: the current accelerator,
        the CPU where there is none.
    no_split_module_classes, offload_state_dict: without effect; a state_dict_name is refused.

    Raises InputError for a folder that is not quantized, ImportError without the packages.
    """
    if state_dict_name is not None:
        raise InputError(
            "state_dict_name: the weights are found by the names of the folder's files", option="state_dict_name"
        )
    ignored = {"no_split_module_classes": no_split_module_classes, "offload_state_dict": offload_state_dict}
    given = [key for key, value in ignored.items() if value]
    if given:
        warnings.warn(f"without effect here: {', '.join(given)}", GptqWarning, stacklevel=2)
    options = {
        "device_map": device_map,
        "max_memory": max_memory,
        "offload_folder": offload_folder,
        "offload_buffers": offload_buffers,
    }
    options = {key: value for key, value in options.items() if value is not None}
    return load_model(
        Path(save_folder),
        class_=model_class_of(model),
        backend=str(getattr(backend, "value", backend)).lower(),
        quantization=_quantization_of(Path(save_folder), quant_config_name),
        **options,
    )


def _quantization_of(folder: Path, name: str) -> dict[str, Any]:
    """How the folder is quantized, by its config.json or the file of this name."""
    for file, key in ((folder / "config.json", "quantization_config"), (folder / name, None)):
        if not file.is_file():
            continue
        config = json.loads(file.read_text(encoding="utf-8"))
        config = config.get(key) if key else config
        if config:
            return {"quant_method": "gptq", **config}
    raise InputError(
        f"{folder} is not quantized: neither config.json nor {name} says how", option="save_folder", file=str(folder)
    )


def _encoder(folder: str, tokenizer: Any):
    """Text -> token ids, by an object of transformers, its name, or the folder's tokenizer."""
    if isinstance(tokenizer, (str, os.PathLike)):
        if os.path.isdir(tokenizer):
            named = os.fspath(tokenizer)
            return lambda text: tokenize(named, text)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if tokenizer is None:
        return lambda text: tokenize(folder, text)
    return lambda text: token_sequences([tokenizer(text)], "dataset")[0]


def _gptaq_options(value: Any) -> dict[str, Any]:
    """gptaq of GPTQModel: True, or an object with its alpha."""
    if not value:
        return {}
    alpha = getattr(value, "alpha", None)
    return {"targets": "gptaq", **({"alpha": alpha} if isinstance(alpha, float) else {})}


def _is_usual(key: str, value: Any) -> bool:
    name = str(value).rpartition(".")[2] if value is not None else None  # torch.int32 -> int32
    return any(value is usual or value == usual or name == usual for usual in _WITHOUT_EFFECT[key])


def _merge_meta(folder: Path, meta: Mapping[str, Any] | None) -> None:
    """Adds the entries to `meta` of both configs; the program's own stay where a name is taken."""
    if not meta:
        return
    for name, key in (("quantize_config.json", None), ("config.json", "quantization_config")):
        path = folder / name
        config = json.loads(path.read_text(encoding="utf-8"))
        part = config[key] if key else config
        part["meta"] = {**meta, **part.get("meta", {})}
        changed = path.with_suffix(".json.new")
        changed.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(changed, path)


def _bytes_of(size: str | int) -> int:
    """ "5MB" -> 5000000, with the units of Hugging Face."""
    if isinstance(size, int):
        return size
    units = {"GIB": 2**30, "MIB": 2**20, "KIB": 2**10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
    text = size.strip().upper()
    for unit, factor in units.items():
        number = text[: len(text) - len(unit)].strip()
        if text.endswith(unit) and number.replace(".", "", 1).isdigit():
            return int(float(number) * factor)
    raise InputError(f"max_shard_size {size}: give digits and a unit, such as 5GB", option="max_shard_size")
