"""Calibration in memory: every form of it, and what is refused."""

from __future__ import annotations

import array

import pytest

from gptq_cpp.calibration import calibration_source, is_text, records_file, text_files, token_sequences, items_of
from gptq_cpp.errors import InputError, UnsupportedError

np = pytest.importorskip("numpy")

IDS = [[1, 2, 3], [4, 5, 6]]


def sequences(calibration):
    with calibration_source(calibration) as source:
        return source.ids


@pytest.mark.parametrize(
    "calibration",
    [
        IDS,
        tuple(map(tuple, IDS)),
        (row for row in IDS),
        np.array(IDS),
        np.array(IDS, dtype=np.uint16),
        [np.array(row) for row in IDS],
        [np.array([row]) for row in IDS],
        [array.array("i", row) for row in IDS],
        [{"input_ids": row} for row in IDS],
        [{"input_ids": [row], "attention_mask": [[1, 1, 1]]} for row in IDS],
        {"input_ids": IDS},
        {"input_ids": np.array(IDS), "attention_mask": np.ones((2, 3), dtype=int)},
    ],
)
def test_every_form_of_ids_gives_the_same_sequences(calibration):
    assert sequences(calibration) == IDS


def test_padded_positions_are_left_out():
    record = {"input_ids": [0, 0, 7, 8], "attention_mask": [0, 0, 1, 1]}
    assert sequences([record]) == [[7, 8]]


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ([1, 2, 3], "list of sequences"),
        ([], "empty"),
        (7, "not int"),
        (b"text", "not bytes"),
        (np.zeros((2, 2)), "float64"),
        (np.zeros((2, 2, 2), dtype=int), r"shape \(2, 2, 2\)"),
        (np.array([True, False]), r"shape \(2,\)"),
        ([[1.5]], "no whole number"),
        ([["a"]], "no whole number"),
        ([[-1]], "id -1"),
        ([[2**31]], "id 2147483648"),
        (["text", [1]], "is str"),
        ([{"input_ids": [1, 2], "attention_mask": [1]}], "attention_mask of 1"),
        ({"ids": [1]}, "no input_ids"),
    ],
)
def test_what_is_no_calibration_is_refused_in_a_sentence(calibration, words):
    with pytest.raises(InputError, match=words) as caught:
        sequences(calibration)
    assert caught.value.option == "calibration"


def test_texts_become_records_of_a_file_that_goes_away():
    with calibration_source(["one\ntext", "zwei"]) as source:
        with open(source.file, encoding="utf-8") as file:
            assert file.read() == '{"text": "one\\ntext"}\n{"text": "zwei"}\n'
    with pytest.raises(FileNotFoundError):
        open(source.file)


def test_a_name_is_a_file_and_a_sentence_is_a_text(tmp_path):
    assert not is_text("missing.txt")
    assert not is_text("my texts.jsonl")
    assert not is_text("wikitext2")
    assert is_text("two words")
    (tmp_path / "two words").write_text("x")
    assert not is_text(str(tmp_path / "two words"))


def test_texts_in_memory_are_one_text_after_the_files(tmp_path):
    file = tmp_path / "a.txt"
    with text_files([file, "two words", [1, 2], "three words more"]) as (files, names):
        assert names == [str(file), "texts in memory", "token ids in memory"]
        with open(files[1]) as documents, open(files[2]) as records:
            assert documents.read().count("\n") == 2
            assert records.read() == '{"input_ids": [1, 2]}\n'


def test_errors_do_not_name_the_file_of_texts_in_memory():
    with pytest.raises(UnsupportedError) as caught:
        with records_file([{"text": "a"}], "the list of texts") as path:
            raise UnsupportedError(f"{path}: is broken", file=path)
    assert str(caught.value) == "the list of texts: is broken"
    assert caught.value.file == ""


def test_a_tensor_without_numpy_is_read_by_its_tolist():
    class Tensor:
        shape = (2, 3)

        def tolist(self):
            return IDS

    assert token_sequences(items_of(Tensor(), "calibration"), "calibration") == IDS
