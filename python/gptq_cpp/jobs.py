"""The package's own functions: plan, quantize, evaluate, compare, generate, inspect, tokenize, devices."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Iterable, overload

from .calibration import Source, calibration_source, items_of, records_file, text_files
from .cuda_libraries import load_cuda_libraries
from .native import (
    EVALUATION_OPTIONS,
    GENERATION_OPTIONS,
    JOB_OPTIONS,
    RECIPE_KEYS,
    RUN_KEYS,
    _native,
    described,
    given_path,
    plain,
    plain_options,
)
from .progress import ProgressOption, listener
from .recipe import Recipe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._keywords import EvaluationOptions, GenerationOptions, RunOptions
    from .reports import Comparison, Device, Evaluation, Inspection, Plan, Report


def _job_options(
    function: str, recipe: Recipe | None, device: Any, options: dict[str, Any]
) -> tuple[Recipe, dict[str, Any]]:
    if recipe is None:
        recipe = Recipe()
    if not isinstance(recipe, Recipe):
        raise TypeError(f"{function}(): recipe is {type(recipe).__name__} where a Recipe was expected: Recipe(bits=4)")
    for key in options:
        if key in RECIPE_KEYS:
            raise TypeError(
                f"{function}() got {key!r}, which belongs to the recipe: recipe=Recipe({key}={options[key]!r})"
            )
    known = [*RUN_KEYS, "model", "out", "recipe", "calibration", "device", "progress"]
    given = plain_options(function, _with_device(function, device, options), known)
    return recipe, {**recipe.options, **given}


def _add_calibration(given: dict[str, Any], source: Source) -> None:
    if source.ids:
        given.setdefault("samples", len(source.ids))  # all of them
    elif source.file:
        given["calibration"] = source.file


def _with_device(function: str, device: Any, options: dict[str, Any]) -> dict[str, Any]:
    if device is None:
        return options
    if options.get("device_map") is not None:
        raise TypeError(f"{function}() got device and device_map: give one of them")
    device = device if isinstance(device, (int, str)) else str(device)  # torch.device
    return {**options, "device_map": f"cuda:{device}" if isinstance(device, int) else plain("device", device)}


def quantize(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    calibration: Any = None,
    *,
    device: Any = None,
    progress: ProgressOption = None,
    **options: Unpack[RunOptions],
) -> Report:
    from .reports import (  # here, as importing the package should be quick
        Report,
        report_from,
    )

    recipe, given = _job_options("quantize", recipe, device, dict(options))
    load_cuda_libraries()
    with calibration_source(calibration) as source, listener("quantize", progress) as (on_message, on_progress):
        _add_calibration(given, source)
        text, places = _native.quantize(
            given_path("model", model),
            given_path("out", out),
            recipe.preset,
            recipe.file,
            given,
            source.ids,
            on_message,
            on_progress,
        )
    if not text:
        return Report(os.fspath(model), os.fspath(out), skipped=True)
    return report_from(json.loads(text), places)


quantize.__doc__ = f"""Quantizes a model folder into a new folder, which is whole or absent.

model: a Hugging Face folder: config.json, safetensors, a tokenizer (not needed for token ids).
out: the folder to write. It must not exist, but for ``overwrite=True``.
recipe: bits, groups and all else of the method.
calibration: one of
    - None: calibration.txt beside the model's folder where there is one, else the built-in text;
    - a file: text or records (.txt, .jsonl, .json, .csv, .tsv; also in .gz);
    - texts: a list of str, each a document; or records, a list of dicts with "text", "messages" and the like;
    - token ids: a list of lists or arrays of one dimension, an array [sequences, tokens], or dicts with "input_ids"
      and perhaps "attention_mask". Each is a sequence, cut to sequence_length, never padded; samples is the number of
      them, where it is not given.
device: "cpu", "cuda", "cuda:0", 0, torch.device: the device for all modules; device_map says more.
progress: a function that is given a `Progress`; True for a bar; False for none; None: a bar in terminals and notebooks
    where tqdm is installed. It is called on this thread, and what it raises ends the job.

Options are those of the job in docs/options.md:

{described(JOB_OPTIONS[key] for key in RUN_KEYS)}

Returns a `Report`. Other threads run meanwhile. Ctrl-C raises KeyboardInterrupt and leaves no output (with
``resume=True``, a folder OUT.partial that a later call continues).

Raises InputError for what you can fix, with its ``option`` and ``file`` (UnsupportedError: a kind that is not known;
ExistsError: out exists), DeviceError and OutOfMemory for devices. Warnings are `GptqWarning`, messages go to the logger
"gptq_cpp".

The method is GPTQ (Frantar et al., 2022, arXiv 2210.17323) with scales found first; docs/recipes.md has the sources of
every option.
"""


def plan(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] = "",
    recipe: Recipe | None = None,
    calibration: Any = None,
    *,
    device: Any = None,
    **options: Unpack[RunOptions],
) -> Plan:
    """What `quantize` with these arguments would take of time (seconds), memory and disk (bytes), and which loaders
    would accept the output. Reads headers, and tries the machine for some seconds.

    Raises InputError for a job that cannot run: it says what does not fit, and the smallest that would.
    """
    from .reports import plan_from

    recipe, given = _job_options("plan", recipe, device, dict(options))
    load_cuda_libraries()
    with calibration_source(calibration) as source:
        _add_calibration(given, source)
        text = _native.plan(
            given_path("model", model), given_path("out", out), recipe.preset, recipe.file, given, source.ids
        )
    return plan_from(json.loads(text))


def _evaluation_options(function: str, device: Any, options: dict[str, Any], **own: Any) -> dict[str, Any]:
    known = [*EVALUATION_OPTIONS, "model", "texts", "device", "progress", "quantized"]
    return plain_options(function, {**_with_device(function, device, options), **own}, known)


def evaluate(
    model: str | os.PathLike[str],
    texts: Any,
    context: int = 0,
    windows: int = 0,
    *,
    device: Any = None,
    progress: ProgressOption = None,
    **options: Unpack[EvaluationOptions],
) -> Evaluation:
    from .reports import Evaluation, Perplexity, made

    given = _evaluation_options("evaluate", device, dict(options), context=context, windows=windows)
    load_cuda_libraries()
    with text_files(texts) as (files, names), listener("evaluate", progress) as (on_message, on_progress):
        results = _native.perplexity(given_path("model", model), files, given, on_message, on_progress)
    return Evaluation(os.fspath(model), [made(Perplexity, result, text=name) for name, result in zip(names, results)])


evaluate.__doc__ = f"""Perplexity of a plain or a quantized folder.

texts: files, texts, or sequences of token ids, or a list of them. A str is the name of a file if there is one, or if it
    ends as one does or has no blank; else it is a text. Texts in memory are the documents of one text, which is cut
    into windows of ``context`` tokens without overlap; sequences of token ids are windows as they are.
context: tokens of a window; 0: 2048, or the model's positions where they are fewer.
windows: of each text at most; 0: all.
device, progress: as those of `quantize`.

Other options:

{described(row for key, row in EVALUATION_OPTIONS.items() if key not in ("context", "windows"))}

Returns an `Evaluation`: perplexity, mean_nll (nats per predicted token), predicted_tokens, windows; ``.texts`` has them
for each text. Raises InputError as `quantize` does, also for a text of fewer tokens than a window.
"""


def compare(
    model: str | os.PathLike[str],
    quantized: str | os.PathLike[str],
    texts: Any,
    context: int = 0,
    windows: int = 0,
    *,
    device: Any = None,
    progress: ProgressOption = None,
    **options: Unpack[EvaluationOptions],
) -> Comparison:
    """Two models on the same tokens, as the first one's tokenizer makes them: perplexity of both, KL(model ||
    quantized) in nats per token, share of tokens with the same most likely successor.

    Arguments are those of `evaluate`. Returns a `Comparison`; ``.texts`` has its figures for each text, with the means
    at each position of a window. Raises InputError as `evaluate` does, and for models of different vocabularies.
    """
    from .reports import comparison_from

    given = _evaluation_options("compare", device, dict(options), context=context, windows=windows)
    load_cuda_libraries()
    with text_files(texts) as (files, names), listener("compare", progress) as (on_message, on_progress):
        results, disagreement = _native.compare(
            given_path("model", model), given_path("quantized", quantized), files, given, on_message, on_progress
        )
    for file, name in zip(files, names):
        disagreement = disagreement.replace(file, name)
    return comparison_from(os.fspath(model), os.fspath(quantized), list(zip(names, results)), disagreement)


def generate(
    model: str | os.PathLike[str],
    prompt: str,
    tokens: int = 64,
    *,
    stop: str | Iterable[str] = (),
    device: Any = None,
    **options: Unpack[GenerationOptions],
) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"generate(): prompt is {type(prompt).__name__} where a str was expected")
    known = [*GENERATION_OPTIONS, "model", "prompt", "stop", "device"]
    given = plain_options("generate", {**_with_device("generate", device, dict(options)), "tokens": tokens}, known)
    stops = [stop] if isinstance(stop, str) else list(stop)
    load_cuda_libraries()
    with listener("generate", False) as (on_message, _):
        return _native.generate(given_path("model", model), prompt, stops, given, on_message)


generate.__doc__ = f"""The new text alone: up to ``tokens`` tokens after the prompt, one by one.

The most likely ones, unless ``temperature`` says otherwise; the same seed gives the same text.

stop: texts that end the new text, and are not part of it.
device: as that of `quantize`.

Other options:

{described(row for key, row in GENERATION_OPTIONS.items() if key != "tokens")}

Raises InputError for a folder without a usable tokenizer, for an empty prompt, and for one that leaves no position for
a new token.
"""


def inspect(model: str | os.PathLike[str]) -> Inspection:
    """What is in a plain or quantized folder, and which loaders accept it. Reads headers, and the scales of a quantized
    folder. Raises InputError for a folder that is no model's."""
    from .reports import inspection_from

    return inspection_from(_native.inspect(given_path("model", model)))


@overload
def tokenize(model: str | os.PathLike[str], text: str, text_key: str = "") -> list[int]: ...  # type: ignore[overload-overlap]
@overload
def tokenize(
    model: str | os.PathLike[str], text: os.PathLike[str] | Iterable[str], text_key: str = ""
) -> list[list[int]]: ...
def tokenize(model: Any, text: Any, text_key: str = "") -> Any:
    """Token ids as the model's tokenizer makes them, with its special tokens.

    text: a str gives a list of ids; an iterable of str a list of ids for each; a path (os.PathLike) a list for each
    document of that file, whose key ``text_key`` names.

    Raises InputError for a folder without a usable tokenizer, and for an empty text.
    """
    folder = given_path("model", model)
    if isinstance(text, os.PathLike):
        return _native.tokenize(folder, os.fspath(text), text_key)
    texts = [text] if isinstance(text, str) else items_of(text, "text")
    if not all(isinstance(item, str) for item in texts):
        raise TypeError("tokenize(): text is a str, an iterable of str or a path")
    with records_file(({"text": item} for item in texts), "the list of texts") as file:
        ids = _native.tokenize(folder, file, "text")
    return ids[0] if isinstance(text, str) else ids


def devices() -> list[Device]:
    """The devices of this machine that this build supports: accelerators first, the CPU last. Sizes in bytes."""
    from .reports import Device, made

    load_cuda_libraries()
    return [made(Device, device) for device in _native.devices()]
