"""The jobs and models of same_outputs.py.

A job is one `gptq quantize` of a small model and what may follow on its output (eval, compare, inspect) or `gptq plan`
alone. Flags may name the devices {a} and {b}: sim:0 and sim:1 on the CPU, the GPUs of --device there.
Models are the folders of tests/golden/families, the demo's, and random Llamas: some written here, which need no
program, some by make_checkpoint, which are left out where that program is not given.
"""
import json
import random
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

FAMILY_VOCABULARY = 66
TINY_VOCABULARY = 128


@dataclass
class Job:
    name: str
    model: str  # a folder below models/
    flags: list
    calibration: str = "ids"  # a file of the work folder; "": none
    follow: tuple = ()  # "eval", "eval-streamed", "compare", "inspect"; or "plan" or "tokenize" instead of quantize
    limits: dict = field(default_factory=dict)  # device -> bytes less than the plan's peak
    only: str = ""  # "cpu": not run on a GPU; "two": needs {b} of the kind of {a}
    made: bool = False  # its model comes from make_checkpoint
    expected: int = 0  # exit code
    recipe: dict = None  # written to recipe.json of the job's folder, {recipe} in the flags


# --- models ---------------------------------------------------------------------------------------------------------


def bf16(value):
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


ENCODE = {
    "F32": lambda value: struct.pack("<f", value),
    "F16": lambda value: struct.pack("<e", value),
    "BF16": bf16,
}
TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def write_llama(folder, dtype="F32", hidden=64, intermediate=96, blocks=2, heads=4, kv_heads=2, head_dim=16,
                vocabulary=TINY_VOCABULARY, fp8_block=0):
    """A random untied Llama; with fp8_block its linears are F8_E4M3 codes with a scale for each square of that size."""
    source = random.Random(20)
    tensors = {}

    def add(name, shape, deviation, mean=0.0):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        tensors[name] = (dtype, shape, b"".join(ENCODE[dtype](source.gauss(mean, deviation)) for _ in range(count)))

    def linear(name, rows, columns):
        if not fp8_block:
            return add(name + ".weight", [rows, columns], 1.5 / columns**0.5)
        squares = [-(-rows // fp8_block), -(-columns // fp8_block)]
        # 120 exponents and mantissas: all but the largest exponent, which holds NaN.
        codes = bytes(source.randrange(2) << 7 | source.randrange(120) for _ in range(rows * columns))
        tensors[name + ".weight"] = ("F8_E4M3", [rows, columns], codes)
        scales = b"".join(struct.pack("<f", 0.001 + source.random() / 1000) for _ in range(squares[0] * squares[1]))
        tensors[name + ".weight_scale_inv"] = ("F32", squares, scales)

    add("model.embed_tokens.weight", [vocabulary, hidden], 1)
    for i in range(blocks):
        block = f"model.layers.{i}."
        add(block + "input_layernorm.weight", [hidden], 0.1, 1)
        add(block + "post_attention_layernorm.weight", [hidden], 0.1, 1)
        linear(block + "self_attn.q_proj", heads * head_dim, hidden)
        linear(block + "self_attn.k_proj", kv_heads * head_dim, hidden)
        linear(block + "self_attn.v_proj", kv_heads * head_dim, hidden)
        linear(block + "self_attn.o_proj", hidden, heads * head_dim)
        linear(block + "mlp.gate_proj", intermediate, hidden)
        linear(block + "mlp.up_proj", intermediate, hidden)
        linear(block + "mlp.down_proj", hidden, intermediate)
    add("model.norm.weight", [hidden], 0.1, 1)
    add("lm_head.weight", [vocabulary, hidden], 0.2)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": blocks, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocabulary,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "torch_dtype": TORCH[dtype]}
    if fp8_block:
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                         "weight_block_size": [fp8_block, fp8_block]}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}\n')
    write_safetensors(folder / "model.safetensors", tensors)


WRITTEN = {
    "tiny": {},
    "tiny-f16": {"dtype": "F16"},
    "tiny-bf16": {"dtype": "BF16"},
    "tiny-fp8": {"dtype": "BF16", "fp8_block": 32},
    "deep": {"blocks": 4},
}
# head sizes: one for each kernel of the GPU's attention and one between two
MADE = {f"head-{size}-{dtype}": ["--hidden", "128", "--intermediate", "256", "--heads", "2", "--kv-heads", "1",
                                 "--head-dim", str(size), "--vocabulary", "256", "--layers", "2", "--dtype", dtype]
        for size, dtype in [(16, "bf16"), (32, "f16"), (64, "bf16"), (64, "f16"), (64, "f32"), (80, "bf16"),
                            (96, "f16"), (128, "bf16"), (128, "f16"), (128, "f32"), (160, "bf16"), (192, "bf16"),
                            (256, "bf16"), (256, "f16"), (256, "f32")]}
# Families with experts whose sizes the packing of 3 bits takes.
EXPERTS = {
    "experts-mixtral": ("mixtral", {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4}),
    "experts-qwen2_moe": ("qwen2_moe", {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4,
                                        "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}),
    "experts-gpt_oss": ("gpt_oss", {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4,
                                    "head_dim": 16}),
}
MADE.update({name: ["--config", f"configs/{name}.json"] for name in EXPERTS})
MADE["wide"] = ["--hidden", "512", "--intermediate", "1024", "--heads", "8", "--kv-heads", "4", "--head-dim", "64",
                "--vocabulary", "1024", "--layers", "2", "--max-shard-size", "2MB"]


def make_command(name, program):
    """Writes the model models/NAME and the ids ids-NAME.jsonl."""
    ids = ["--ids", f"ids-{name}.jsonl", "--sequences", "8", "--length", "160"]
    shape = [] if name in EXPERTS else ["--shape", "tiny"]
    return [program, f"models/{name}", *shape, "--seed", "7", *MADE[name], *ids]


def write_ids(path, sequences, length, vocabulary, seed=None):
    source = random.Random(seed)
    with open(path, "w") as file:
        for s in range(sequences):
            ids = [(s * 7 + i * i * 5 + i * s) % vocabulary if seed is None else source.randrange(vocabulary)
                   for i in range(length)]
            file.write(json.dumps({"input_ids": ids}) + "\n")


def write_inputs(work, source):
    """All models and calibration files that need no program; `source` is the root of the source tree."""
    models = work / "models"
    for name, options in WRITTEN.items():
        write_llama(models / name, **options)
    shutil.copytree(source / "demo" / "model", models / "demo")
    for name in family_names(source):
        shutil.copytree(source / "tests" / "golden" / "families" / name, models / name,
                        ignore=shutil.ignore_patterns("golden.safetensors"))
    (work / "configs").mkdir()
    for name, (family, changes) in EXPERTS.items():
        config = json.loads((models / family / "config.json").read_text())
        (work / "configs" / f"{name}.json").write_text(json.dumps({**config, **changes}))
    shutil.copy(source / "demo" / "calibration.txt", work / "calibration.txt")
    shutil.copy(source / "demo" / "heldout.txt", work / "heldout.txt")
    write_ids(work / "ids-66.jsonl", 24, 16, FAMILY_VOCABULARY)
    write_ids(work / "ids-66-long.jsonl", 8, 48, FAMILY_VOCABULARY)
    write_ids(work / "ids-128.jsonl", 16, 32, TINY_VOCABULARY, seed=1)
    write_ids(work / "lots.jsonl", 3000, 60, TINY_VOCABULARY, seed=3)
    write_ids(work / "many.jsonl", 240, 40, TINY_VOCABULARY, seed=2)
    lines = (source / "demo" / "calibration.txt").read_text().splitlines()
    with open(work / "texts.jsonl", "w") as file:
        for at in range(0, 80, 10):
            file.write(json.dumps({"text": "\n".join(lines[at:at + 10])}) + "\n")


def family_names(source):
    folder = Path(source) / "tests" / "golden" / "families"
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


# --- jobs -----------------------------------------------------------------------------------------------------------

BASE = {
    "demo": ("calibration.txt", ["--samples", "6", "--sequence-length", "64"]),
    "family": ("ids-66.jsonl", ["--samples", "24", "--sequence-length", "16", "--group-size", "-1"]),
    "tiny": ("ids-128.jsonl", ["--samples", "16", "--sequence-length", "32", "--group-size", "32"]),
    "many": ("many.jsonl", ["--samples", "240", "--sequence-length", "40", "--group-size", "32", "--batch-size", "4"]),
    "lots": ("lots.jsonl", ["--samples", "3000", "--sequence-length", "60", "--group-size", "32"]),
    "made": ("", ["--samples", "8", "--sequence-length", "150", "--group-size", "32"]),
    "wide": ("", ["--samples", "8", "--sequence-length", "160"]),
}
BOTH = ("eval", "compare")


def all_jobs(source):
    jobs = []

    def add(name, model, base, *flags, **more):
        file, defaults = BASE[base]
        own = [flag for flag in flags if flag.startswith("--")]
        kept = []
        for flag, value in zip(defaults[::2], defaults[1::2]):
            if flag not in own:
                kept += [flag, value]
        if "--threads" not in own:
            kept += ["--threads", "1"]
        jobs.append(Job(name, model, [*kept, *flags], more.pop("calibration", file), **more))

    def tiny(name, *flags, **more):
        add(name, more.pop("model", "tiny"), "tiny", *flags, **more)

    # Every preset at every width, with the demo's trained weights; every format that takes the width.
    for preset in ("default", "best", "paper", "group-aware"):
        for bits in ("2", "3", "4", "8"):
            add(f"preset/{preset}-{bits}", "demo", "demo", "--preset", preset, "--bits", bits,
                follow=BOTH if bits in ("3", "4") else ())
            tiny(f"preset/{preset}-{bits}-v2", "--preset", preset, "--bits", bits, "--checkpoint-format", "gptq_v2")
            tiny(f"preset/{preset}-{bits}-asym", "--preset", preset, "--bits", bits, "--asym")
            if bits in ("4", "8"):
                tiny(f"preset/{preset}-{bits}-ct", "--preset", preset, "--bits", bits,
                     "--checkpoint-format", "compressed-tensors", follow=("eval", "inspect"))
    for bits in ("4", "8"):
        tiny(f"format/ct-asym-{bits}", "--bits", bits, "--asym", "--checkpoint-format", "compressed-tensors",
             follow=("eval", "inspect"))
        add(f"format/ct-group-128-{bits}", "demo", "demo", "--bits", bits, "--checkpoint-format", "compressed-tensors",
            follow=("compare",))
    for size in ("16", "-1"):
        tiny(f"group-size/{size}", "--group-size", size, follow=("eval", "inspect"))

    # Order of columns, groups, scales.
    for order in ("diagonal", "group-aware", "natural"):
        for static in ("--static-groups", "--no-static-groups"):
            for sym in ([], ["--asym"]):
                expected = 2 if order == "diagonal" and static == "--no-static-groups" else 0
                tiny(f"order/{order}{static[1:]}{'-asym' if sym else ''}", "--order", order, static, *sym,
                     expected=expected)
    for bits in ("2", "3", "4", "8"):
        tiny(f"desc-act/{bits}", "--desc-act", "--bits", bits, follow=("eval", "inspect"))
    tiny("desc-act/static", "--desc-act", "--static-groups", expected=2)
    tiny("desc-act/asym", "--desc-act", "--asym")
    tiny("desc-act/ct", "--desc-act", "--checkpoint-format", "compressed-tensors", expected=2)
    for search in ("diag", "mse", "minmax"):
        for name, more in {"": [], "-asym": ["--asym"], "-signed": ["--signed-scales"],
                           "-dynamic": ["--order", "natural", "--no-static-groups"]}.items():
            tiny(f"scale-search/{search}{name}", "--scale-search", search, *more)
    for bits in ("2", "3"):
        tiny(f"scales/positive-{bits}", "--bits", bits, "--no-signed-scales")
    for bits in ("4", "8"):
        tiny(f"scales/signed-{bits}", "--bits", bits, "--signed-scales", follow=("eval", "inspect"))
    for bits in ("2", "3", "4", "8"):
        tiny(f"rtn/{bits}", "--method", "rtn", "--bits", bits, calibration="", follow=("eval",))
        tiny(f"rtn/{bits}-minmax-asym", "--method", "rtn", "--bits", bits, "--scale-search", "minmax", "--asym",
             calibration="")

    # Targets, stages after the columns, damping, sequence of steps.
    for targets in ("corrected", "gptaq"):
        for bits in ("2", "4"):
            tiny(f"targets/{targets}-{bits}", "--targets", targets, "--bits", bits)
        tiny(f"targets/{targets}-alpha", "--targets", targets, "--alpha", "1")
        tiny(f"targets/{targets}-at-once", "--targets", targets, "--no-true-sequential")
        tiny(f"targets/{targets}-desc-act", "--targets", targets, "--desc-act")
    for bits in ("2", "3", "4"):
        for stages in ("none", "r", "c1", "r c2 r"):
            tiny(f"refine/{bits}-{stages.replace(' ', '')}", "--bits", bits, "--refine", stages)
    tiny("refine/asym", "--bits", "3", "--asym", "--refine", "r c2 r c1")
    tiny("damp/10", "--damp-percent", "0.1")
    tiny("at-once/default", "--no-true-sequential")
    tiny("at-once/3-bits", "--no-true-sequential", "--bits", "3", "--preset", "best")
    tiny("modules/names", "--modules-in-block-to-quantize", "self_attn.q_proj,mlp.down_proj", follow=("inspect",))
    tiny("modules/lists", "--modules-in-block-to-quantize", '[["self_attn.q_proj"], ["mlp.up_proj", "mlp.gate_proj"]]')

    # Rules for single modules, files of recipes.
    rules = {"bits": 4, "group_size": 32,
             "dynamic": {"-:.*layers\\.0\\.mlp": {}, "+:.*down_proj": {"bits": 8, "group_size": 16},
                         ".*o_proj": {"sym": False}, ".*k_proj": {"desc_act": True}}}
    tiny("recipe/rules", "--recipe", "{recipe}", recipe=rules, follow=("eval", "inspect"))
    tiny("recipe/flags-override", "--recipe", "{recipe}", "--bits", "3", "--preset", "best", recipe=rules)
    widths = {"preset": "best", "bits": 3, "group_size": 32, "dynamic": {".*layers\\.1\\.": {"bits": 2}}}
    tiny("recipe/widths", "--recipe", "{recipe}", recipe=widths, follow=("eval", "inspect"))
    skipped = {"bits": 4, "group_size": 32, "dynamic": {"-:.*(down|o)_proj": {}}}
    tiny("recipe/skip", "--recipe", "{recipe}", recipe=skipped, follow=("inspect",))
    fused = {"bits": 4, "group_size": 32, "dynamic": {".*(q|k|v)_proj": {"bits": 8}}}
    tiny("recipe/fused", "--recipe", "{recipe}", recipe=fused, follow=("inspect",))
    ct = {"bits": 4, "group_size": 32, "checkpoint_format": "compressed-tensors",
          "dynamic": {".*(gate|up)_proj": {"bits": 8}, "-:.*layers\\.1\\.self_attn": {}}}
    tiny("recipe/ct", "--recipe", "{recipe}", recipe=ct, follow=("eval", "inspect"))
    every = {"bits": 3, "group_size": 16, "sym": False, "scale_search": "mse", "order": "natural",
             "static_groups": False, "damp_percent": 0.02, "true_sequential": False, "targets": "gptaq", "alpha": 0.3,
             "refine": "c2", "expert_tokens": 64, "moe_calibrate_all_experts": True, "lm_head": True,
             "checkpoint_format": "gptq_v2", "method": "gptq"}
    tiny("recipe/every-key", "--recipe", "{recipe}", recipe=every)
    config = {"quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": 32, "sym": True,
              "desc_act": True, "lm_head": False, "pack_dtype": "int32", "true_sequential": True,
              "damp_percent": 0.05, "static_groups": False,
              "meta": {"quantizer": ["gptqmodel:1.0.0"], "scale_search": "minmax", "order": "diagonal"}}
    tiny("recipe/of-a-config", "--recipe", "{recipe}", recipe=config)
    tiny("recipe/average-bits", "--recipe", "{recipe}", recipe={"average_bits": 3.5, "group_size": 32})

    # The output head.
    tiny("lm-head/default", "--lm-head", follow=BOTH)
    tiny("lm-head/best-3", "--lm-head", "--preset", "best", "--bits", "3")
    tiny("lm-head/rtn", "--lm-head", "--method", "rtn", calibration="")
    tiny("lm-head/ct", "--lm-head", "--checkpoint-format", "compressed-tensors", follow=("eval",))
    tiny("lm-head/rule", "--lm-head", "--recipe", "{recipe}",
         recipe={"group_size": 32, "dynamic": {"lm_head": {"bits": 8}}}, follow=("eval", "inspect"))

    # Widths that are chosen.
    for average in ("2.5", "3.25", "3.5", "5"):
        tiny(f"average-bits/{average}", "--average-bits", average, follow=("eval",))
    tiny("average-bits/best", "--average-bits", "3.5", "--preset", "best")
    tiny("average-bits/asym", "--average-bits", "3.5", "--asym")
    add("average-bits/vllm", "demo", "demo", "--average-bits", "5", "--for", "vllm", follow=("inspect",))
    tiny("average-bits/ct", "--average-bits", "6", "--checkpoint-format", "compressed-tensors")
    tiny("average-bits/sim", "--average-bits", "3.5", "--device-map", "{a}")
    add("average-bits/experts", "mixtral", "family", "--average-bits", "3.5", expected=2)
    add("average-bits/demo", "demo", "demo", "--average-bits", "3.5", follow=("compare",))

    # Loaders that must take the output.
    for loader in ("vllm", "sglang", "transformers", "gptqmodel", "exllamav2"):
        add(f"for/{loader}", "demo", "demo", "--for", loader, follow=("inspect",))
    tiny("for/refused", "--for", "vllm", "--bits", "3", expected=2)

    # Every family; experts in all ways.
    for family in family_names(source):
        add(f"family/{family}", family, "family", "--expert-tokens", "32", follow=("compare",))
    experts = ("qwen2_moe", "qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3", "gpt_oss", "phimoe", "llama4",
               "olmoe", "granitemoe", "glm4_moe", "ernie4_5_moe", "dots1")
    for family in experts:
        add(f"experts/{family}-best", family, "family", "--preset", "best", "--refine", "r c2 r")
        add(f"experts/{family}-all", family, "family", "--moe-calibrate-all-experts", "--no-true-sequential")
        add(f"experts/{family}-placed", family, "family", "--device-map", "{a}", "--expert-tokens", "1")
    add("experts/mixtral-ct", "mixtral", "family", "--checkpoint-format", "compressed-tensors", follow=("eval",))
    add("experts/gpt_oss-ct", "gpt_oss", "family", "--checkpoint-format", "compressed-tensors", follow=("eval",))
    add("experts/qwen2_moe-rtn", "qwen2_moe", "family", "--method", "rtn", calibration="")
    add("experts/mixtral-rules", "mixtral", "family", "--recipe", "{recipe}",
        recipe={"dynamic": {"-:.*experts\\.[01]\\.": {}, ".*experts\\.2\\.": {"bits": 8}}}, follow=("eval",))
    for family in ("gemma2", "gemma3", "bloom", "gpt_oss", "mistral", "gpt2", "phi3", "deepseek_v2", "llama4",
                   "qwen3_moe"):
        for precision in ("bf16", "fp16"):
            add(f"precision/{family}-{precision}", family, "family", "--precision", precision, "--samples", "8",
                "--sequence-length", "48", "--preset", "best", calibration="ids-66-long.jsonl", follow=("compare",))

    # Precisions, stored types, threads, batches, the text.
    for model in ("tiny", "tiny-f16", "tiny-bf16", "tiny-fp8"):
        for precision in ("auto", "fp32", "bf16", "fp16"):
            tiny(f"precision/{model}-{precision}", "--precision", precision, model=model, follow=("compare",))
        tiny(f"precision/{model}-placed", "--device-map", "{a}", "--lm-head", model=model)
    for threads in ("1", "2"):
        for batch in ("1", "3", "16"):
            tiny(f"batch/{batch}-threads-{threads}", "--batch-size", batch, "--threads", threads)
        add(f"threads/{threads}-best", "demo", "demo", "--threads", threads, "--preset", "best", "--bits", "3",
            follow=("compare",))
    add("text/tokenize", "demo", "demo", follow=("tokenize",))
    add("text/seed", "demo", "demo", "--seed", "3")
    add("text/jsonl", "demo", "demo", calibration="texts.jsonl")
    tiny("text/few", "--samples", "5", "--sequence-length", "20")
    tiny("read-rate/slow", "--max-read-rate", "1MB", only="cpu")
    for size in ("30kB", "100kB"):
        tiny(f"shards/{size}", "--max-shard-size", size, follow=("eval",))
    add("shards/experts", "mixtral", "family", "--max-shard-size", "20kB")

    # Devices: maps, words, offload.
    def deep_map(devices):
        entries = {"model.embed_tokens": devices[0], "model.norm": devices[-1], "lm_head": devices[-1]}
        entries.update({f"model.layers.{i}": devices[i % len(devices)] for i in range(4)})
        return json.dumps(entries)

    for name, flags in {"default": [], "best": ["--preset", "best", "--bits", "2"], "head": ["--lm-head"],
                        "at-once": ["--targets", "gptaq", "--no-true-sequential"],
                        "average": ["--average-bits", "3.5"]}.items():
        add(f"map/one-{name}", "deep", "many", "--device-map", "{a}", *flags)
        add(f"map/visits-{name}", "deep", "many", "--device-map", deep_map(["{a}", "cpu"]), *flags)
        add(f"map/two-{name}", "deep", "many", "--device-map", deep_map(["{a}", "{b}"]), *flags, only="two")
        add(f"map/mixed-{name}", "deep", "many", "--device-map", deep_map(["{a}", "cpu", "{b}"]), *flags, only="two")
    add("map/single-cpu", "deep", "many", "--device-map", '{"": "cpu"}', "--max-memory", '{"{a}": "1GB"}')
    add("map/no-map", "deep", "many", "--max-memory", '{"{a}": "1GB"}')
    add("map/embedding-on-cpu", "deep", "many", "--device-map", '{"": "{a}", "model.embed_tokens": "cpu"}')
    for word in ("auto", "balanced", "balanced_low_0", "sequential"):
        add(f"map/{word}", "deep", "many", "--device-map", word, "--max-memory",
            '{"{a}": "1GB", "{b}": "1GB", "cpu": "4GB"}', only="two")
    for family in ("mixtral", "qwen2_moe"):
        add(f"map/visits-{family}", family, "family", "--device-map", '{"": "{a}", "model.layers.1": "cpu"}')
    add("map/disk", "deep", "many", "--device-map", '{"": "{a}", "model.layers.3": "disk"}', expected=2)
    add("map/unknown", "deep", "many", "--device-map", '{"": "{a}", "model.layer.0": "cpu"}', expected=2)
    add("map/eval-streams", "deep", "tiny", "--device-map", "{a}", follow=("eval", "eval-streamed", "compare"))

    # Short memory: the states lose their inputs, leave for the host, for a file; fewer sequences pass at once.
    for name, no_inputs, host, flags in [("default", 1_800_000, 4_900_000, []),
                                         ("best", 3_000_000, 8_200_000, ["--preset", "best", "--bits", "3"]),
                                         ("average", 900_000, 4_000_000, ["--average-bits", "3.5"])]:
        add(f"memory/no-inputs-{name}", "deep", "many", "--device-map", "{a}", *flags, limits={"{a}": no_inputs})
        add(f"memory/host-{name}", "deep", "many", "--device-map", "{a}", *flags, limits={"{a}": host})
    for passes, less in [("two", 6_300_000), ("more", 9_500_000)]:
        add(f"memory/{passes}-passes", "deep", "many", "--device-map", "{a}", "--batch-size", "240",
            limits={"{a}": less})
    for name, streams, flags in [("default", 1, []), ("best", 2, ["--preset", "best"])]:
        less = streams * 3000 * 60 * (64 + 96) * 4 * 7 // 10
        add(f"memory/spill-{name}", "tiny", "lots", "--spill-dir", "{spill}", *flags, limits={"cpu": less}, only="cpu")
        add(f"memory/spill-placed-{name}", "tiny", "lots", "--device-map", "{a}", "--spill-dir", "{spill}", *flags,
            limits={"{a}": less, "cpu": less}, only="cpu")
    add("memory/refused", "deep", "many", "--device-map", "{a}", "--max-memory", '{"{a}": "10kB"}', expected=2)

    # Refusals write nothing.
    add("refused/tied-head", "demo", "demo", "--lm-head", expected=2)
    tiny("refused/bits", "--bits", "5", expected=2)
    tiny("refused/group", "--group-size", "48", expected=2)
    tiny("refused/ct-3", "--bits", "3", "--checkpoint-format", "compressed-tensors", expected=2)
    tiny("refused/quantized-twice", model="tiny", calibration="missing.jsonl", expected=2)

    # What plan says of memory.
    for preset in ("default", "best"):
        add(f"plan/demo-{preset}", "demo", "demo", "--preset", preset, "--device-map", "{a}", follow=("plan",))
        add(f"plan/mixtral-{preset}", "mixtral", "family", "--preset", preset, "--device-map", "{a}", follow=("plan",))
        add(f"plan/visits-{preset}", "deep", "many", "--preset", preset, "--device-map", deep_map(["{a}", "cpu"]),
            follow=("plan",))
    add("plan/cpu", "deep", "many", follow=("plan",), only="cpu")

    # Checkpoints of make_checkpoint: every kernel of attention, and one of several shards.
    for name in MADE:
        if name.startswith("head"):
            add(f"made/{name}", name, "made", follow=("compare",), calibration=f"ids-{name}.jsonl", made=True)
    for name in EXPERTS:
        for preset, bits in [("default", "3"), ("best", "3"), ("best", "2"), ("paper", "3")]:
            add(f"made/{name}-{preset}-{bits}", name, "family", "--preset", preset, "--bits", bits, "--group-size",
                "32", "--expert-tokens", "64", follow=("compare",), made=True)
        add(f"made/{name}-placed", name, "family", "--bits", "3", "--group-size", "32", "--device-map", "{a}",
            made=True)
        add(f"made/{name}-ct", name, "family", "--group-size", "32", "--checkpoint-format", "compressed-tensors",
            follow=("eval",), made=True)
    for preset in ("default", "best"):
        for bits in ("3", "4"):
            add(f"made/wide-{preset}-{bits}", "wide", "wide", "--preset", preset, "--bits", bits, "--lm-head",
                "--max-shard-size", "300kB", calibration="ids-wide.jsonl", made=True,
                follow=("compare",))
    return jobs
