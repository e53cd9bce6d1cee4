"""Optimum's face, without torch: each argument of Optimum 2.3 is honoured, accepted with a warning, or refused."""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path

import pytest

import gptq_cpp as gptq
from conftest import weights
from gptq_cpp import GPTQQuantizer, data_sets, in_memory, load_quantized_model, optimum

SHORT = {"model_seqlen": 64, "final_check": False}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """The packages that load models count as missing, installed or not."""
    monkeypatch.setattr(in_memory, "find_spec", lambda name: None)


def config_of(quantizer: GPTQQuantizer, model: object, tokenizer: object = None) -> dict:
    folder = quantizer.quantize_model(model, tokenizer).gptq_folder
    return json.loads((folder / "quantize_config.json").read_text())


# Honoured.


def test_the_documentations_lines_give_the_folder_of_the_own_face(model, ids, tmp_path):
    quantizer = GPTQQuantizer(bits=4, dataset=ids, group_size=64, model_seqlen=128)
    quantized = quantizer.quantize_model(model)
    quantizer.save(quantized, tmp_path / "saved")
    recipe = gptq.Recipe(bits=4, group_size=64, damp_percent=0.1)
    gptq.quantize(model, tmp_path / "own", recipe, ids, sequence_length=128, samples=16)
    assert weights(tmp_path / "saved") == weights(tmp_path / "own")
    assert (tmp_path / "saved" / "config.json").read_bytes() == (tmp_path / "own" / "config.json").read_bytes()
    assert len(quantizer.report.linears) == len(gptq.inspect(tmp_path / "saved").modules) - len(
        [m for m in gptq.inspect(model).modules if m.name.count(".") < 4 or "norm" in m.name]
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"bits": 3}, {"bits": 3}),
        ({"bits": 4, "group_size": 32}, {"group_size": 32}),
        ({"bits": 4, "group_size": -1}, {"group_size": -1}),
        ({"bits": 4, "desc_act": True}, {"desc_act": True}),
        ({"bits": 4, "sym": False}, {"sym": False, "checkpoint_format": "gptq_v2"}),
        ({"bits": 4, "format": "gptq_v2"}, {"sym": True, "checkpoint_format": "gptq_v2"}),
        ({"bits": 4, "checkpoint_format": "gptq_v2"}, {"checkpoint_format": "gptq_v2"}),
        ({"bits": 4, "damp_percent": 0.3}, {"damp_percent": 0.3}),
        ({"bits": 4, "true_sequential": False}, {"true_sequential": False}),
    ],
)
def test_arguments_are_in_the_config_of_the_output(arguments, expected, model, ids):
    config = config_of(GPTQQuantizer(**{"group_size": 64, **arguments}, dataset=ids[:4], **SHORT), model)
    assert {key: config[key] for key in expected} == expected


def recipe_of(**arguments) -> dict:
    return GPTQQuantizer(**{"bits": 4, **arguments})._recipe().options


def test_arguments_go_into_the_recipe():
    plain = recipe_of()
    assert plain == {
        "bits": 4,
        "group_size": 128,
        "damp_percent": 0.1,
        "sym": True,
        "true_sequential": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
    }
    changes = [
        ({"act_group_aware": True}, {"order": "group-aware"}),
        ({"act_group_aware": False}, {}),
        ({"act_group_aware": True, "desc_act": True}, {"desc_act": True}),
        ({"static_groups": False}, {"static_groups": False}),
        ({"lm_head": True}, {"lm_head": True}),
        ({"gptaq": True}, {"targets": "gptaq"}),
        ({"gptaq": types.SimpleNamespace(alpha=0.25)}, {"targets": "gptaq", "alpha": 0.25}),
        ({"mse": 2.0}, {"scale_search": "mse"}),
        ({"mse": 0.0}, {}),
        ({"refine": "c4"}, {"refine": "c4"}),
        (
            {"modules_in_block_to_quantize": [["a", "b"], ["c"]]},
            {"modules_in_block_to_quantize": '[["a", "b"], ["c"]]'},
        ),
        ({"dynamic": {"a": {"bits": 8}}}, {"dynamic": '{"a": {"bits": 8}}'}),
        ({"quant_method": "gptq"}, {}),
        ({"method": "rtn"}, {"method": "rtn"}),
    ]
    for arguments, change in changes:
        assert recipe_of(**arguments) == {**plain, **change}, arguments
    assert "bits" not in recipe_of(average_bits=3.5)
    assert GPTQQuantizer(bits=4, preset="best")._recipe().preset == "best"


def test_act_group_aware_changes_the_codes_only_when_it_is_given(model, ids):
    def codes(**arguments):
        quantizer = GPTQQuantizer(bits=3, dataset=ids[:4], group_size=64, **SHORT, **arguments)
        return weights(quantizer.quantize_model(model).gptq_folder)

    assert codes() == codes(act_group_aware=False) != codes(act_group_aware=True)


def test_only_the_named_modules_are_quantized(model, ids):
    modules = [["self_attn.q_proj"], ["mlp.down_proj"]]
    quantizer = GPTQQuantizer(bits=4, dataset=ids[:4], group_size=64, modules_in_block_to_quantize=modules, **SHORT)
    quantizer.quantize_model(model)
    assert {linear.kind for linear in quantizer.report.linears} == {"q_proj", "down_proj"}


def test_model_seqlen_cuts_sequences_and_else_the_model_does(model, ids, tmp_path):
    quantizer = GPTQQuantizer(bits=4, dataset=ids[:4], group_size=64, **SHORT)
    quantizer.quantize_model(model)
    assert quantizer.report.tokens == 4 * 64
    for positions, expected in ((512, 512), (8192, 4028), (None, 2048)):
        config = {"max_position_embeddings": positions} if positions else {}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert in_memory.default_length(str(tmp_path)) == expected


def test_batch_size_is_given_on_where_it_is_not_the_usual_one(model, ids, monkeypatch):
    given = []
    real = optimum.quantize
    monkeypatch.setattr(optimum, "quantize", lambda *a, **k: given.append(k["batch_size"]) or real(*a, **k))
    for size in (1, 2):
        GPTQQuantizer(bits=4, dataset=ids[:4], group_size=64, batch_size=size, **SHORT).quantize_model(model)
    assert given == [None, 2]


def test_meta_is_merged_into_both_configs(model, ids):
    quantizer = GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, meta={"team": "a", "quantizer": ["x"]}, **SHORT)
    folder = quantizer.quantize_model(model).gptq_folder
    metas = [
        json.loads((folder / "quantize_config.json").read_text())["meta"],
        json.loads((folder / "config.json").read_text())["quantization_config"]["meta"],
    ]
    assert metas[0] == metas[1]
    assert metas[0]["team"] == "a"
    assert metas[0]["quantizer"] != ["x"]  # the program's own


# Data.


def test_texts_are_tokenized_by_the_folder_or_by_the_object(model):
    texts = ["Once upon a time there was a dog. " * 5, "The sun was warm and the sky was blue. " * 5]

    class Tokenizer:
        def __call__(self, text):
            return {"input_ids": [gptq.tokenize(model, text)]}

    folders = []
    for tokenizer in (None, str(model), Tokenizer()):
        quantizer = GPTQQuantizer(bits=4, dataset=texts, group_size=64, **SHORT)
        folders.append((quantizer, weights(quantizer.quantize_model(model, tokenizer).gptq_folder)))
        assert quantizer.report.sequences == 2
    assert len({folder for _, folder in folders}) == 1


def test_padded_positions_do_not_count(model, ids):
    padded = [{"input_ids": [0] * 8 + row[:32], "attention_mask": [0] * 8 + [1] * 32} for row in ids[:4]]
    quantizer = GPTQQuantizer(bits=4, dataset=padded, group_size=64, **SHORT)
    quantizer.quantize_model(model)
    assert quantizer.report.tokens == 4 * 32


def fake_datasets(monkeypatch):
    lines = ["", *[f"line {i} of many" for i in range(1500)]]
    documents = [{"text": "x" * (2 * (i % 90)) + chr(65 + i % 26) * 31} for i in range(200)]
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, *a, **k: {"text": lines} if "wikitext" in name else documents
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.parametrize("name", data_sets.NAMES)
def test_named_data_sets_give_the_slices_of_optimum(name, monkeypatch):
    fake_datasets(monkeypatch)
    found = ["".join(map(chr, ids)) for ids in data_sets.named_sequences(name, lambda text: [ord(c) for c in text], 40)]
    slices = json.loads((Path(__file__).parent / "golden" / "slices.json").read_text())
    assert found == slices[name]


def test_names_that_are_not_known_are_refused_with_those_that_are(model, monkeypatch):
    for name, words in (("ptb", "retired"), ("wikitext3", "wikitext2, c4, c4-new")):
        with pytest.raises(ValueError, match=words):
            GPTQQuantizer(bits=4, dataset=name, group_size=64).quantize_model(model)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        GPTQQuantizer(bits=4, dataset="wikitext2", group_size=64).quantize_model(model)


def test_documents_that_are_too_short_are_told(monkeypatch):
    fake_datasets(monkeypatch)
    with pytest.raises(gptq.InputError, match="too few documents"):
        data_sets.named_sequences("c4", lambda text: [1], 40)
    with pytest.raises(gptq.InputError, match="more than 40"):
        data_sets.named_sequences("wikitext2", lambda text: [1], 40)


# Without effect.


@pytest.mark.parametrize(
    "arguments",
    [
        {"block_name_to_quantize": "model.layers"},
        {"module_name_preceding_first_block": ["model.embed_tokens"]},
        {"cache_block_outputs": False},
        {"pad_token_id": 0},
        {"backend": "torch"},
        {"pack_impl": "gpu"},
        {"pack_dtype": "int8"},
        {"compute_device_filter": print},
        {"gc_mode": "on_stage_end"},
        {"telemetry": True},
        {"damp_auto_increment": 0.01},
        {"fallback": {"threshold": 1}},
        {"auto_forward_data_parallel": False},
        {"calibration_data_device": "cpu"},
    ],
)
def test_arguments_without_effect_are_named_in_one_warning(arguments):
    with pytest.warns(gptq.GptqWarning, match=f"^without effect here: {next(iter(arguments))}") as caught:
        GPTQQuantizer(bits=4, **arguments)
    assert len(caught) == 1
    assert Path(caught[0].filename).name == Path(__file__).name


def test_several_arguments_without_effect_give_one_warning():
    with pytest.warns(
        gptq.GptqWarning, match="cache_block_outputs, pad_token_id, gc_mode; pad_token_id: sequences"
    ) as caught:
        GPTQQuantizer(bits=4, cache_block_outputs=False, pad_token_id=1, gc_mode="interval")
    assert len(caught) == 1


def test_usual_values_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GPTQQuantizer(
            bits=4,
            block_name_to_quantize=None,
            cache_block_outputs=True,
            backend="auto",
            pack_dtype="torch.int32",
            offload_to_disk=False,
            trust_remote_code=False,
            rotation=None,
        )


# Refused.


@pytest.mark.parametrize(
    "key",
    ["rotation", "smooth", "smoother", "preprocessors", "adapter", "foem", "embed_quant_config", "embed_quant_mode",
     "trust_remote_code", "checkpoint", "moe"],
)  # fmt: skip
def test_what_cannot_be_met_is_refused_in_one_sentence(key):
    with pytest.raises(ValueError, match=f"^{key}: ") as caught:
        GPTQQuantizer(bits=4, **{key: True})
    assert caught.value.option == key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bits": 5}, "2, 3, 4 or 8"),
        ({"bits": 4, "group_size": 0}, "positive"),
        ({"bits": 4, "damp_percent": 1.0}, "less than 1"),
        ({"bits": 4, "quant_method": "awq"}, "gptq and rtn"),
        ({"bits": 4, "format": "marlin"}, "marlin"),
    ],
)
def test_values_out_of_range_are_refused_at_once(arguments, words):
    with pytest.raises(ValueError, match=words):
        GPTQQuantizer(**arguments)


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="did you mean 'damp_percent'"):
        GPTQQuantizer(bits=4, damp_percnt=0.1)


# Device maps: the rules and words of Optimum.


class Placed:
    """A model in memory that accelerate has placed, as far as it is looked at."""

    def __init__(self, folder: Path, device_map: dict) -> None:
        self.hf_device_map = device_map
        self.folder = folder

    def save_pretrained(self, target: str) -> None:
        import shutil

        shutil.copytree(self.folder, target, dirs_exist_ok=True)


def test_disk_offload_is_refused_with_the_words_of_optimum(model, ids):
    placed = Placed(model, {"model": "cpu", "lm_head": "disk"})
    with pytest.raises(ValueError, match="^disk offload is not supported with GPTQ quantization"):
        GPTQQuantizer(bits=4, dataset=ids, group_size=64).quantize_model(placed)


def test_a_map_of_cpu_alone_asks_for_no_placement(model, ids):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantizer = GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, **SHORT)
        quantizer.quantize_model(Placed(model, {"": "cpu"}))
    assert quantizer.report.device_map == {"": "cpu"}
    assert not any("offload" in str(warning.message) for warning in caught)


def test_a_map_with_cpu_among_others_warns_with_the_words_of_optimum(model, ids):
    placed = Placed(
        model, {"model.embed_tokens": "sim:0", "model.layers": "cpu", "model.norm": "sim:0", "lm_head": "sim:0"}
    )
    with pytest.warns(
        gptq.GptqWarning, match="^Cpu offload is not recommended. There might be some issues with the memory"
    ):
        GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, **SHORT).quantize_model(placed)


# A model in memory, saving and dictionaries.


def test_a_model_in_memory_is_saved_to_a_folder_that_goes_away(model, ids, tmp_path):
    placed = Placed(model, {})
    with pytest.warns(gptq.GptqWarning, match="saved but not loaded: loading needs torch"):
        quantizer = GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, work_dir=tmp_path, **SHORT)
        quantizer.quantize_model(placed)
    assert len(list(tmp_path.iterdir())) == 1  # the output
    del quantizer
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_a_type_error():
    with pytest.raises(TypeError, match="not int"):
        GPTQQuantizer(bits=4).quantize_model(7)


def test_save_moves_the_folder_once_and_then_copies_it(model, ids, tmp_path):
    quantizer = GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, **SHORT)
    quantized = quantizer.quantize_model(model)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "note.txt").write_text("kept")
    quantizer.save(quantized, tmp_path / "there")
    quantizer.save(quantized, str(tmp_path / "again"))
    assert quantized.gptq_folder == tmp_path / "there"
    assert (tmp_path / "there" / "note.txt").read_text() == "kept"
    assert weights(tmp_path / "there") == weights(tmp_path / "again") != b""


def test_save_tells_of_files_that_are_too_large_and_refuses_pickles(model, ids, tmp_path):
    quantizer = GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, **SHORT)
    with pytest.raises(gptq.InputError, match="call quantize_model first"):
        quantizer.save(None, tmp_path / "none")
    quantized = quantizer.quantize_model(model)
    with pytest.raises(gptq.InputError, match="safetensors only"):
        quantizer.save(quantized, tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(gptq.InputError, match="digits and a unit"):
        quantizer.save(quantized, tmp_path / "odd", max_shard_size="large")
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(gptq.GptqWarning, match="give max_shard_size to GPTQQuantizer"):
        quantizer.save(quantized, tmp_path / "saved", max_shard_size="100KB")


def test_max_shard_size_cuts_the_files(model, ids):
    quantizer = GPTQQuantizer(bits=4, dataset=ids[:2], group_size=64, max_shard_size="1MB", **SHORT)
    folder = quantizer.quantize_model(model).gptq_folder
    assert len(list(folder.glob("*.safetensors"))) > 1


def test_a_quantizer_is_made_again_from_its_dictionary(quantized):
    quantizer = GPTQQuantizer(
        bits=3, dataset="c4", group_size=32, sym=False, act_group_aware=True, refine="c4", meta={"a": 1}
    )
    values = json.loads(json.dumps(quantizer.to_dict()))
    again = GPTQQuantizer.from_dict(values)
    assert again.to_dict() == values
    assert again._recipe() == quantizer._recipe()
    config = json.loads((quantized[0] / "quantize_config.json").read_text())
    assert GPTQQuantizer.from_dict(config).group_size == 64


def test_a_dictionary_of_optimum_is_taken():
    values = {
        "bits": 4, "dataset": "wikitext2", "group_size": 128, "damp_percent": 0.1, "desc_act": False,
        "act_group_aware": True, "sym": True, "true_sequential": True, "quant_method": "gptq",
        "modules_in_block_to_quantize": None, "format": "gptq", "meta": {"quantizer": ["optimum:2.3.0"]},
    }  # fmt: skip
    quantizer = GPTQQuantizer.from_dict(values)
    assert {key: quantizer.to_dict()[key] for key in values} == values


def test_convert_model_points_to_the_loaders():
    with pytest.raises(gptq.InputError, match="load_quantized_model"):
        GPTQQuantizer(bits=4).convert_model(object())


# Loading.


def test_loading_without_the_packages_says_what_to_install(quantized):
    with pytest.raises(ImportError, match="pip install torch transformers optimum gptqmodel"):
        load_quantized_model(None, quantized[0])


def test_loading_finds_how_a_folder_is_quantized(quantized, model, monkeypatch, tmp_path):
    calls: list = []
    monkeypatch.setattr(optimum, "load_model", lambda folder, **options: calls.append((folder, options)))
    load_quantized_model(None, str(quantized[0]), device_map={"": "cpu"}, max_memory={"cpu": "1GB"}, backend="torch",
                         offload_folder="o", offload_buffers=True)  # fmt: skip
    folder, options = calls[0]
    assert folder == quantized[0]
    assert options.pop("quantization")["bits"] == 4
    assert options == {
        "class_": None, "backend": "torch", "device_map": {"": "cpu"}, "max_memory": {"cpu": "1GB"},
        "offload_folder": "o", "offload_buffers": True,
    }  # fmt: skip
    (tmp_path / "own.json").write_text('{"bits": 3}')
    load_quantized_model(None, tmp_path, quant_config_name="own.json")
    assert calls[1][1]["quantization"] == {"quant_method": "gptq", "bits": 3}
    with pytest.raises(gptq.InputError, match="is not quantized"):
        load_quantized_model(None, model)
    with pytest.raises(gptq.InputError, match="names of the folder's files"):
        load_quantized_model(None, quantized[0], state_dict_name="a.bin")
    with pytest.warns(gptq.GptqWarning, match="no_split_module_classes, offload_state_dict"):
        load_quantized_model(None, quantized[0], no_split_module_classes=["Block"], offload_state_dict=True)


def test_an_automatic_map_is_the_cpu_where_there_is_no_accelerator(quantized, monkeypatch):
    """With stand-ins for torch and transformers, as far as they are used."""
    given: list = []
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    transformers = types.ModuleType("transformers")

    class Auto:
        @classmethod
        def from_pretrained(cls, folder, **options):
            given.append((folder, options))
            return types.SimpleNamespace(eval=lambda: "model", quantization_config={"bits": 4})

    transformers.AutoConfig = transformers.AutoModelForCausalLM = Auto
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    monkeypatch.setattr(in_memory, "find_spec", lambda name: True)
    for asked, expected in (("auto", {"": "cpu"}), (None, {"": "cpu"}), ({"": "cuda:1"}, {"": "cuda:1"})):
        assert load_quantized_model(None, quantized[0], device_map=asked) == "model"
        assert given[-1][0] == quantized[0]
        assert given[-1][1]["device_map"] == expected
