"""Types of keywords. Written by tools/python_keywords.py from the tables of src/recipe/options.cpp."""

from os import PathLike
from typing import Any, Literal, Mapping, TypedDict

class RecipeOptions(TypedDict, total=False):
    """Keywords of Recipe."""

    method: Literal["gptq", "rtn"] | None
    bits: int | None
    average_bits: float | None
    group_size: int | Literal["auto"] | None
    sym: bool | None
    desc_act: bool | None
    scale_search: Literal["diag", "mse", "minmax"] | None
    order: Literal["diagonal", "group-aware", "natural"] | None
    static_groups: bool | None
    targets: Literal["weights", "corrected", "gptaq"] | None
    signed_scales: bool | None
    refine: str | None
    alpha: float | None
    round_dead_columns: bool | None
    damp_percent: float | None
    true_sequential: bool | None
    modules_in_block_to_quantize: str | list[str] | list[list[str]] | None
    expert_tokens: int | None
    moe_calibrate_all_experts: bool | None
    lm_head: bool | None
    checkpoint_format: Literal["auto", "gptq", "gptq_v2", "compressed-tensors"] | None
    dynamic: Mapping[str, Mapping[str, Any]] | None

class RunOptions(TypedDict, total=False):
    """Keywords of quantize and plan."""

    calibration_key: str | None
    samples: int | None
    sequence_length: int | None
    seed: int | None
    device_map: str | PathLike[str] | Mapping[str, Any] | None
    max_memory: str | Mapping[Any, str | int] | None
    precision: str | None
    ignore_config_keys: str | None
    threads: int | None
    batch_size: int | None
    spill_dir: str | PathLike[str] | None
    max_read_rate: int | str | None
    from_quantized: bool | None
    loader: str | None
    max_shard_size: int | str | None
    overwrite: bool | None
    resume: bool | None
    checkpoint_states: bool | None
    final_check: bool | None
    skip_existing: bool | None

class EvaluationOptions(TypedDict, total=False):
    """Keywords of evaluate and compare."""

    text_key: str | None
    device_map: str | PathLike[str] | Mapping[str, Any] | None
    max_memory: str | Mapping[Any, str | int] | None
    precision: str | None
    ignore_config_keys: str | None
    threads: int | None

class GenerationOptions(TypedDict, total=False):
    """Keywords of generate."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    device_map: str | PathLike[str] | Mapping[str, Any] | None
    max_memory: str | Mapping[Any, str | int] | None
    precision: str | None
    ignore_config_keys: str | None
    threads: int | None
