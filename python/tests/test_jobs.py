"""The package's own functions on the demo model."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import gptq_cpp as gptq
from conftest import DEMO, weights
from gptq_cpp import program


def command(*arguments: object) -> dict:
    done = subprocess.run([program.path(), *map(str, arguments), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_report_has_every_linear_with_its_place(quantized, model):
    out, report = quantized
    config = json.loads((model / "config.json").read_text())
    assert (out / "config.json").is_file()
    assert len(report.linears) == 7 * config["num_hidden_layers"]
    first = report.linears[0]
    assert (first.name, first.block, first.expert) == ("model.layers.0.self_attn.q_proj", 0, -1)
    assert {linear.block for linear in report.linears} == set(range(config["num_hidden_layers"]))
    assert all(linear.bits == 4 and linear.group_size == 64 for linear in report.linears)
    assert all(0 < linear.error < 0.2 for linear in report.linears)
    assert report.tokens == 16 * 128
    assert report.recipe["group_size"] == 64
    assert report.check.sequences >= 1
    assert any(verdict.accepts for verdict in report.loaders)


def test_the_folder_has_the_bytes_of_the_command_line(quantized, model, ids, tmp_path):
    file = tmp_path / "ids.jsonl"
    file.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ids))
    command(
        "quantize",
        model,
        tmp_path / "out",
        "--bits",
        4,
        "--group-size",
        64,
        "--calibration",
        file,
        "--sequence-length",
        128,
    )
    assert weights(tmp_path / "out") == weights(quantized[0])
    for name in ("config.json", "quantize_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (quantized[0] / name).read_bytes()


@pytest.mark.parametrize("make", ["array", "arrays", "records"])
def test_every_form_of_ids_gives_the_same_folder(make, quantized, model, ids, tmp_path):
    np = pytest.importorskip("numpy")
    calibration = {
        "array": lambda: np.array(ids),
        "arrays": lambda: [np.array(row) for row in ids],
        "records": lambda: [{"input_ids": row + [0], "attention_mask": [1] * len(row) + [0]} for row in ids],
    }[make]()
    gptq.quantize(model, tmp_path / "out", gptq.Recipe(bits=4, group_size=64), calibration, sequence_length=128)
    assert weights(tmp_path / "out") == weights(quantized[0])


def test_texts_are_calibrated_on_as_the_same_records_in_a_file(model, tmp_path):
    lines = (DEMO / "calibration.txt").read_text(encoding="utf-8")[:30_000].splitlines()
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines if line.strip()))
    options = {"samples": 8, "sequence_length": 64, "final_check": False}
    recipe = gptq.Recipe(bits=3, group_size=64)
    gptq.quantize(model, tmp_path / "a", recipe, [line for line in lines if line.strip()], **options)
    gptq.quantize(model, tmp_path / "b", recipe, file, **options)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_recipe_file_and_its_keywords_change_the_folder(quantized, model, ids, tmp_path):
    recipe = gptq.Recipe(file=quantized[0] / "quantize_config.json", bits=8)
    report = gptq.quantize(model, tmp_path / "out", recipe, ids, sequence_length=128, final_check=False)
    assert {(linear.bits, linear.group_size) for linear in report.linears} == {(8, 64)}


def test_dynamic_rules_are_given_as_a_dict(model, ids, tmp_path):
    recipe = gptq.Recipe(group_size=64, dynamic={r"-:.*\.0\..*": {}, r".*down_proj": {"bits": 8}})
    report = gptq.quantize(model, tmp_path / "out", recipe, ids[:4], sequence_length=64, final_check=False)
    assert {(linear.kind, linear.bits) for linear in report.linears if linear.kind in ("down_proj", "up_proj")} == {
        ("down_proj", 8),
        ("up_proj", 4),
    }
    assert 0 not in {linear.block for linear in report.linears}


def test_progress_comes_on_the_calling_thread_and_ends_at_one(model, ids, tmp_path):
    seen: list[tuple[gptq.Progress, int]] = []
    gptq.quantize(
        model,
        tmp_path / "out",
        gptq.Recipe(group_size=64),
        ids[:4],
        sequence_length=64,
        progress=lambda progress: seen.append((progress, threading.get_ident())),
    )
    fractions = [progress.fraction for progress, _ in seen]
    assert {thread for _, thread in seen} == {threading.get_ident()}
    assert fractions == sorted(fractions)
    assert 0.9 < fractions[-1] <= 1
    assert all(progress.blocks > progress.block >= 0 and progress.memory_bytes > 0 for progress, _ in seen)


def test_what_the_callback_raises_ends_the_job_without_output(model, ids, tmp_path):
    class Enough(Exception):
        pass

    def stop(progress):
        raise Enough

    with pytest.raises(Enough):
        gptq.quantize(model, tmp_path / "out", gptq.Recipe(group_size=64), ids, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_other_threads_run_meanwhile(model, ids, tmp_path):
    turns = 0
    done = threading.Event()

    def count():
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    began = time.monotonic()
    gptq.quantize(model, tmp_path / "out", gptq.Recipe(group_size=64), ids, sequence_length=128)
    seconds = time.monotonic() - began
    done.set()
    thread.join()
    assert turns > 20 * seconds  # of up to 1000 a second; without the GIL released there would be none


def test_control_c_raises_keyboard_interrupt_and_leaves_no_output(model, tmp_path):
    code = f"""
import os, signal
import gptq_cpp as gptq
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
sent = []
def interrupt(progress):
    if not sent:
        sent.append(progress.fraction)
        os.kill(os.getpid(), signal.SIGINT)
try:
    gptq.quantize({str(model)!r}, {str(tmp_path / "out")!r}, gptq.Recipe(group_size=64), samples=64, progress=interrupt)
except KeyboardInterrupt:
    print("interrupted", sent[0] < 1, os.listdir({str(tmp_path)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "interrupted True []\n", done.stderr


def test_a_signal_from_outside_interrupts_too(model, tmp_path):
    code = f"""
import signal
import gptq_cpp as gptq
signal.signal(signal.SIGINT, signal.default_int_handler)
print("started", flush=True)
recipe = gptq.Recipe("best", group_size=64)
gptq.quantize({str(model)!r}, {str(tmp_path / "out")!r}, recipe, samples=128, sequence_length=512)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert list(tmp_path.iterdir()) == []


def test_plan_knows_the_size_of_the_output(quantized, model, ids):
    plan = gptq.plan(model, recipe=gptq.Recipe(bits=4, group_size=64), calibration=ids, sequence_length=128)
    assert plan.output_bytes == quantized[1].output_bytes
    assert plan.tokens == quantized[1].tokens
    assert plan.host.peak_bytes > 0
    assert [verdict.loader for verdict in plan.loaders] == [verdict.loader for verdict in quantized[1].loaders]


def test_evaluate_and_compare_agree_with_the_command_line(quantized, model):
    text = DEMO / "heldout.txt"
    expected = command("compare", model, quantized[0], "--text", text, "--context", 128, "--windows", 6)["texts"][0]
    found = gptq.evaluate(quantized[0], [text], context=128, windows=6)
    assert found.perplexity == expected["quantized"]["perplexity"]
    assert found.predicted_tokens == 6 * 127
    compared = gptq.compare(model, quantized[0], [str(text)], context=128, windows=6)
    assert compared.kl == expected["mean_kl"]
    assert compared.texts[0].model.perplexity == expected["model"]["perplexity"]
    assert compared.same_top == expected["same_top"]
    assert len(compared.texts[0].positions) == 127


def test_texts_in_memory_are_evaluated_as_the_file(model, heldout):
    by_file = gptq.evaluate(model, DEMO / "heldout.txt", context=128, windows=6)
    by_text = gptq.evaluate(model, texts=[heldout], context=128, windows=6)
    assert by_text.mean_nll == by_file.mean_nll
    assert by_text.texts[0].text == "texts in memory"


def test_ids_are_windows_as_they_are(model, heldout):
    tokens = gptq.tokenize(model, heldout)
    windows = [tokens[128 * i : 128 * (i + 1)] for i in range(6)]
    assert gptq.evaluate(model, windows).mean_nll == gptq.evaluate(model, [heldout], context=128, windows=6).mean_nll


def test_several_texts_are_one_figure_of_all_tokens(model, heldout):
    both = gptq.evaluate(model, [DEMO / "heldout.txt", heldout[:5000]], context=64, windows=4)
    assert len(both.texts) == 2
    mean = sum(text.mean_nll * text.predicted_tokens for text in both.texts) / both.predicted_tokens
    assert both.perplexity == pytest.approx(math.exp(mean))


def test_generate_gives_the_new_text_alone(model):
    text = gptq.generate(model, "Once upon a time", tokens=12)
    assert text and not text.startswith("Once")
    assert (
        gptq.generate(model, "Once upon a time", tokens=4) == text[: len(gptq.generate(model, "Once upon a time", 4))]
    )
    with pytest.raises(gptq.InputError, match="tokens 0"):
        gptq.generate(model, "Once upon a time", tokens=0)


def test_generate_draws_by_its_seed_and_stops(model):
    def draw(seed: int) -> str:
        return gptq.generate(model, "Once", 16, temperature=1.2, top_k=100, top_p=0.9, seed=seed, device="cpu")

    assert draw(1) == draw(1) != draw(2)
    text = gptq.generate(model, "Once upon a time", tokens=12)
    stop = text[8:11]
    assert gptq.generate(model, "Once upon a time", 12, stop=stop) == text[: text.index(stop)]
    assert gptq.generate(model, "Once upon a time", 12, stop=["nothing of it", stop]) == text[: text.index(stop)]


def test_generate_says_what_is_wrong(model):
    for arguments, option in (({"top_p": 2.0}, "top_p"), ({"prompt": ""}, "prompt"), ({"stop": ""}, "stop")):
        with pytest.raises(gptq.InputError) as raised:
            gptq.generate(**{"model": model, "prompt": "Once", **arguments})
        assert raised.value.option == option
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        gptq.generate(model, "Once", temprature=1)


def test_tokenize_takes_a_text_texts_and_a_file(model, tmp_path):
    first, second = "Once upon a time", "there was a dog.\n\nIt barked."
    ids = gptq.tokenize(model, [first, second])
    assert ids == [gptq.tokenize(model, first), gptq.tokenize(model, second)]
    (tmp_path / "a.txt").write_text(second)
    assert gptq.tokenize(model, tmp_path / "a.txt") == [ids[1]]


def test_inspect_tells_a_plain_folder_from_a_quantized_one(quantized, model):
    plain, found = gptq.inspect(model), gptq.inspect(quantized[0])
    assert (plain.bits, plain.checkpoint_format) == (0, "")
    assert (found.bits, found.group_size, found.checkpoint_format) == (4, 64, "gptq")
    assert found.parameters == plain.parameters
    assert sum(module.bits == 4 for module in found.modules) == len(quantized[1].linears)


def test_devices_end_with_the_cpu():
    assert gptq.devices()[-1].name == "cpu"
    assert gptq.devices()[-1].total_bytes > 0


@pytest.mark.parametrize(
    ("arguments", "kind", "option", "words"),
    [
        ({"model": "/nowhere"}, gptq.InputError, "", "/nowhere"),
        ({"calibration": "missing.txt"}, gptq.InputError, "", "missing.txt does not exist"),
        ({"calibration": "wikitext2"}, gptq.InputError, "", "if the data set is meant"),
        ({"recipe": gptq.Recipe(group_size=48)}, gptq.InputError, "group_size", "48"),
        ({"samples": 0}, gptq.InputError, "samples", "positive"),
        (
            {"device_map": {"": "cpu", "lm_head": "disk"}},
            gptq.InputError,
            "",
            "^disk offload is not supported with GPTQ",
        ),
        ({"device": "tpu"}, gptq.InputError, "", "tpu"),
        ({"loader": "vllm", "recipe": gptq.Recipe(bits=3, group_size=64)}, gptq.InputError, "", "(?i)vllm"),
    ],
)
def test_errors_say_what_to_fix(arguments, kind, option, words, model, tmp_path):
    given = {"model": model, "calibration": [[1, 2, 3, 4] * 20] * 4, **arguments}
    with pytest.raises(kind, match=words) as caught:
        gptq.quantize(out=tmp_path / "out", **given)
    assert isinstance(caught.value, ValueError)
    assert caught.value.option == option or not option
    assert "`" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept_unless_asked(quantized, model, ids, tmp_path):
    with pytest.raises(gptq.ExistsError) as caught:
        gptq.quantize(model, quantized[0], gptq.Recipe(group_size=64), ids)
    assert caught.value.file == str(quantized[0])
    again = gptq.quantize(model, quantized[0], gptq.Recipe(group_size=64), ids, skip_existing=True)
    assert again.skipped and again.linears == []


def test_a_mixed_device_map_warns_with_the_words_of_optimum(model, ids, tmp_path):
    with pytest.warns(
        gptq.GptqWarning, match="^Cpu offload is not recommended. There might be some issues with the memory"
    ):
        gptq.quantize(
            model,
            tmp_path / "out",
            gptq.Recipe(group_size=64),
            ids[:4],
            sequence_length=64,
            device_map={
                "model.embed_tokens": "sim:0",
                "model.layers": "cpu",
                "model.norm": "sim:0",
                "lm_head": "sim:0",
            },
        )


def test_warnings_name_the_line_that_calls(model, ids, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gptq.quantize(model, tmp_path / "out", gptq.Recipe(group_size=64), ids[:2], sequence_length=64, samples=8)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name] * len(caught)
    assert any("fewer than the 8 of samples" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gptq.quantize("m", "o", sampels=4), "did you mean 'samples'"),
        (lambda: gptq.quantize("m", "o", bits=4), r"recipe=Recipe\(bits=4\)"),
        (lambda: gptq.quantize("m", "o", {"bits": 4}), "a Recipe was expected"),
        (lambda: gptq.quantize("m", "o", device="cpu", device_map="cpu"), "give one of them"),
        (lambda: gptq.quantize("m", "o", progress=3), "True, False or a function"),
        (lambda: gptq.evaluate("m", ["a b"], contxt=4), "did you mean 'context'"),
        (lambda: gptq.quantize(object(), "o"), "GPTQQuantizer takes models in memory"),
    ],
)
def test_wrong_calls_are_type_errors_with_a_way_out(call, words):
    with pytest.raises(TypeError, match=words):
        call()
