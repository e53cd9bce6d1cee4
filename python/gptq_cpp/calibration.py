"""Texts and token ids in memory, as the native module reads them: ids in lists, texts in a file of records."""

from __future__ import annotations

import contextlib
import json
import operator
import os
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

from .errors import InputError

_LARGEST_ID = 2**31 - 1
_TEXT_ENDINGS = (".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz")


class Source(NamedTuple):
    """What a job calibrates on: a file ("": the built-in text), or ids where there are any."""

    file: str
    ids: list[list[int]]


@contextlib.contextmanager
def calibration_source(calibration: Any) -> Iterator[Source]:
    """None, a file, a text or texts, token ids, or records (dicts), as `quantize` describes them."""
    if calibration is None:
        yield Source("", [])
    elif isinstance(calibration, os.PathLike) or (isinstance(calibration, str) and not is_text(calibration)):
        yield Source(os.fspath(calibration), [])
    else:
        items: list[Any] = [calibration] if isinstance(calibration, str) else items_of(calibration, "calibration")
        if all(isinstance(item, str) for item in items):
            with records_file(({"text": text} for text in items), "the list of texts") as file:
                yield Source(file, [])
        elif all(isinstance(item, Mapping) and "input_ids" not in item for item in items):
            with records_file(items, "the list of records") as file:
                yield Source(file, [])
        else:
            yield Source("", token_sequences(items, "calibration"))


@contextlib.contextmanager
def text_files(texts: Any) -> Iterator[tuple[list[str], list[str]]]:
    """Files for `evaluate`, and the name of each: files as they are; texts in memory together are one more, and so are
    sequences of token ids."""
    if isinstance(texts, (str, os.PathLike)):
        texts = [texts]
    files, documents, sequences = [], [], []
    for item in items_of(texts, "texts"):
        if isinstance(item, os.PathLike) or (isinstance(item, str) and not is_text(item)):
            files.append(os.fspath(item))
        elif isinstance(item, str):
            documents.append({"text": item})
        else:
            sequences += token_sequences([item], "texts")
    names = list(files)
    with contextlib.ExitStack() as stack:
        if documents:
            files.append(stack.enter_context(records_file(documents, "the list of texts")))
            names.append("texts in memory")
        if sequences:
            records = ({"input_ids": ids} for ids in sequences)
            files.append(stack.enter_context(records_file(records, "the list of token ids")))
            names.append("token ids in memory")
        yield files, names


def is_text(item: str) -> bool:
    """Whether a str is a text rather than the name of a file: it names none, and has a blank or no ending of one."""
    if item == "-" or (len(item) < 4096 and "\n" not in item and os.path.exists(item)):
        return False
    if item.endswith(_TEXT_ENDINGS) and "\n" not in item:
        return False
    return any(character.isspace() for character in item)


@contextlib.contextmanager
def records_file(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[str]:
    """A file with these records while the context lasts. Errors that are about it speak of `name` instead."""
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="gptq-", suffix=".jsonl")
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False))
                file.write("\n")
        try:
            yield path
        except InputError as error:
            if path not in str(error):
                raise
            text = str(error).replace(f"the text file {path}", name).replace(path, name)
            raise type(error)(text, option=error.option, tensor=error.tensor) from None
    finally:
        os.unlink(path)


def items_of(values: Any, what: str) -> list[Any]:
    """The items of a list, an iterable, an array or a batch of a tokenizer."""
    if isinstance(values, Mapping):  # {"input_ids": [[...], ...], ...}
        if "input_ids" not in values:
            raise InputError(f"{what}: the dict has no input_ids", option=what)
        rows = _rows(values["input_ids"], what)
        masks = values.get("attention_mask")
        if masks is None:
            return rows
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in zip(rows, _rows(masks, what))]
    if hasattr(values, "tolist"):
        return _rows(values, what)
    if isinstance(values, (bytes, bytearray)) or not isinstance(values, Iterable):
        raise InputError(f"{what}: give a file, texts, or lists of token ids, not {type(values).__name__}", option=what)
    items = list(values)
    if not items:
        raise InputError(f"{what}: the list is empty where texts or token ids were expected", option=what)
    if all(_is_integer(item) for item in items):
        raise InputError(f"{what}: give a list of sequences: [[1, 2, 3]], not [1, 2, 3]", option=what)
    return items


def token_sequences(items: list[Any], what: str) -> list[list[int]]:
    """Token ids of each sequence: of a list, an array of one dimension (or of two with one row), or a record with
    input_ids, whose padded positions are left out by its attention_mask."""
    sequences = []
    for number, item in enumerate(items):
        where = f"{what}: sequence {number}"
        mask = None
        if isinstance(item, Mapping):
            if "input_ids" not in item:
                raise InputError(f"{where} has no input_ids", option=what)
            mask = item.get("attention_mask")
            item = item["input_ids"]
        ids = _flat(item, where, what)
        if mask is not None:
            kept = _flat(mask, where, what)
            if len(kept) != len(ids):
                raise InputError(f"{where} has {len(ids)} ids and an attention_mask of {len(kept)}", option=what)
            ids = [token for token, keep in zip(ids, kept) if keep]
        if ids and not 0 <= min(ids) <= max(ids) <= _LARGEST_ID:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise InputError(f"{where} has the id {wrong}, which is no token id", option=what)
        sequences.append(ids)
    return sequences


def _rows(values: Any, what: str) -> list[Any]:
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) != 2:
        raise InputError(
            f"{what}: an array of shape {tuple(shape)} was given where [sequences, tokens] was expected", option=what
        )
    return _checked_list(values, what, what)


def _flat(values: Any, where: str, what: str) -> list[int]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{where} is {type(values).__name__} where token ids were expected", option=what)
    ids = _checked_list(values, where, what)
    if len(ids) == 1 and isinstance(ids[0], (list, tuple)):  # [1, tokens], as tokenizers return it
        ids = list(ids[0])
    try:
        return [operator.index(token) for token in ids]
    except TypeError:
        raise InputError(f"{where} holds what is no whole number", option=what) from None


def _checked_list(values: Any, where: str, what: str) -> list[Any]:
    if not hasattr(values, "tolist"):
        return list(values)
    kind = getattr(getattr(values, "dtype", None), "kind", None)  # of numpy
    if kind is not None and kind not in "iuO":
        raise InputError(f"{where} is an array of {values.dtype} where whole numbers were expected", option=what)
    return values.tolist()


def _is_integer(item: Any) -> bool:
    return not isinstance(item, bool) and hasattr(item, "__index__") and not hasattr(item, "__len__")
