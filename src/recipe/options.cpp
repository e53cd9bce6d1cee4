// The tables of options: one row for each member of the structs that hold options (recipe/option.h).
#include <charconv>

#include "recipe/access.h"
#include "recipe/option.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

using Group = OptionInfo::Group;

constexpr std::string_view kAutomatic = "auto";
constexpr double kMostTemperature = 100;
constexpr std::string_view kGroupSizeRange =
    "give auto, a positive divisor of the input sizes, or -1 for one group per row";

// "auto", or a number, which may come as a text.
Access<Recipe> group_size_access() {
  Access<Recipe> result = access(&Recipe::group_size);
  result.kind = OptionInfo::Kind::text;
  result.set = [](Recipe& recipe, const Json& value) {
    recipe.group_size.reset();
    if (value == kAutomatic) return;
    if (!value.is_string()) {
      recipe.group_size = whole_number<int64_t>(value);
      return;
    }
    const std::string text = value.get<std::string>();
    int64_t size = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
    if (error != std::errc() || end != text.data() + text.size()) throw InputError(cat(text, ": ", kGroupSizeRange));
    recipe.group_size = size;
  };
  return result;
}

bool has_few_bits(const Recipe& recipe) { return recipe.bits <= 3 && recipe.method == Method::gptq; }

void decide_refine(Recipe& recipe) {
  // A refit needs groups of neighbouring columns.
  const char* at_two = recipe.desc_act ? "c4" : "r c2 r c2 r";
  recipe.refine = !has_few_bits(recipe) ? "none" : recipe.bits == 2 ? at_two : "c4";
}

void imply_desc_act(Recipe& recipe) {
  if (!recipe.desc_act) return;
  recipe.static_groups = false;
  recipe.order = Order::diagonal;
}

// Widths, grids and the order of columns.
std::vector<Option<Recipe>> grid_rows() {
  using R = Recipe;
  return {
      {.key = "method",
       .access = access(&R::method),
       .help = "gptq, or rtn: round to nearest",
       .more = "Rounding takes no calibration.",
       .alias = "quantization_method",
       .recorded = true},
      {.key = "bits",
       .access = access(&R::bits),
       .help = "2, 3, 4 or 8",
       .fits = [](const R& r) { return r.bits == 2 || r.bits == 3 || r.bits == 4 || r.bits == 8; },
       .range = "the GPTQ format holds 2, 3, 4 or 8",
       .implies = [](R& r) { r.average_bits = 0; }},
      {.key = "average_bits",
       .access = access(&R::average_bits),
       .help = "bits on average, such as 3.5: what fewer bits cost is measured, and chosen step by step",
       .initial = kNoInitial,
       .more = "See [recipes](recipes.md#bit-widths-chosen-per-step).",
       .fits = [](const R& r) { return r.average_bits == 0 || (r.average_bits >= 2 && r.average_bits <= 8); },
       .range = "give a number from 2 to 8, such as 3.5"},
      {.key = "group_size",
       .access = group_size_access(),
       .help = "inputs that share a scale; -1: all; auto: 128, 64 or 32",
       .initial = kAutomatic,
       .more = "`auto` is the largest that divides the inputs of every linear; a number must do so itself.",
       .fits = [](const R& r) { return !r.group_size || *r.group_size == -1 || *r.group_size > 0; },
       .range = kGroupSizeRange,
       .decide = [](R& r) { r.group_size = kGroupSizes.front(); }},
      {.key = "sym",
       .access = access(&R::sym),
       .off_help = "zero points of their own (default: symmetric)",
       .off = "asym",
       .more = "Zero points are stored as `gptq_v2`."},
      {.key = "desc_act",
       .access = access(&R::desc_act),
       .help = "groups in the order of columns: shuffled g_idx",
       .more = "As in Optimum; not every loader takes it.",
       .implies = imply_desc_act},
      {.key = "scale_search",
       .access = access(&R::scale_search),
       .help = "diag, mse or minmax",
       .more = "`diag` weights errors with the Hessian's diagonal.",
       .recorded = true},
      {.key = "order",
       .access = access(&R::order),
       .help = "of columns: diagonal, group-aware or natural",
       .recorded = true},
      {.key = "static_groups",
       .access = access(&R::static_groups),
       .help = "all scales before any column",
       .off_help = "a group's scale when its first column comes",
       .initial = "yes"},
  };
}

// Targets, signs, refinement and damping.
std::vector<Option<Recipe>> solving_rows() {
  using R = Recipe;
  return {
      {.key = "targets",
       .access = access(&R::targets),
       .help = "what codes reproduce: weights, corrected (for what blocks before have lost; a second stream) or gptaq",
       .recorded = true},
      {.key = "signed_scales",
       .access = access(&R::signed_scales),
       .help = "scales may be negative, code 0 standing for the largest weight",
       .off_help = "scales are positive",
       .initial = "at 2 and 3 bits",
       .decide = [](R& r) { r.signed_scales = r.sym && has_few_bits(r); },
       .recorded = true},
      {.key = "refine",
       .access = access(&R::refine),
       .help = "after the columns: r (refit scales) and cN (N sweeps over the codes), as in 'r c2 r', or none",
       .initial = "c4 at 3 bits, r c2 r c2 r at 2",
       .decide = decide_refine,
       .recorded = true},
      {.key = "alpha",
       .access = access(&R::alpha),
       .help = "share of the correction",
       .initial = "0.5, at 2 bits 0.25",
       .fits = [](const R& r) { return !r.alpha || (*r.alpha > 0 && *r.alpha <= 1); },
       .range = "it is a share of the correction, more than 0 and at most 1",
       .decide = [](R& r) { r.alpha = r.bits == 2 ? 0.25 : 0.5; },
       .counts = [](const R& r) { return r.targets != Targets::weights; },
       .recorded = true},
      {.key = "round_dead_columns",
       .access = access(&R::round_dead_columns),
       .off_help = "inputs that no calibration token activates get weight 0 (default: rounded to nearest)",
       .more = "As in the paper."},
      {.key = "damp_percent",
       .access = access(&R::damp_percent),
       .help = "damping, a share of the mean diagonal",
       .fits = [](const R& r) { return r.damp_percent > 0 && r.damp_percent < 1; },
       .range = "it is a share of the mean diagonal, more than 0 and less than 1"},
  };
}

// Which modules, from which tokens, in which format.
std::vector<Option<Recipe>> module_rows() {
  using R = Recipe;
  return {
      {.key = "true_sequential",
       .access = access(&R::true_sequential),
       .off_help = "all Hessians of a block before any rounding"},
      {.key = "modules_in_block_to_quantize",
       .access = access(&R::modules_in_block_to_quantize),
       .help = "names with commas, or Optimum's JSON lists",
       .initial = "all"},
      {.key = "expert_tokens",
       .access = access(&R::expert_tokens),
       .help = "experts that see fewer are calibrated with all tokens",
       .more = "The run warns, and the report lists them.",
       .fits = [](const R& r) { return r.expert_tokens >= 1; },
       .range = "give a positive number of tokens"},
      {.key = "moe_calibrate_all_experts",
       .access = access(&R::moe_calibrate_all_experts),
       .help = "every expert is calibrated with all tokens",
       .more = "In the statistics only: the router still decides which experts a token passes."},
      {.key = "lm_head",
       .access = access(&R::lm_head),
       .help = "quantize the output head too (not where it is the embedding)"},
      {.key = "checkpoint_format", .access = access(&R::checkpoint_format), .alias = "format"},
      {.key = "dynamic", .access = access(&R::dynamic)},
  };
}

std::vector<Option<Calibration>> calibration_rows() {
  using C = Calibration;
  return {
      {.key = "calibration",
       .access = access(&C::file),
       .group = Group::calibration,
       .help = "text or records (.txt, .jsonl, .json, .csv, .tsv; also in .gz), - for stdin",
       .more = "See [texts](evaluation.md#texts). The demo model brings its own."},
      {.key = "calibration_key",
       .access = access(&C::key),
       .group = Group::calibration,
       .help = "key or column that has the text, token ids or messages of a record",
       .more = "Without it: text, messages, input_ids, conversations, or a question with its answer."},
      {.key = "samples",
       .access = access(&C::samples),
       .group = Group::calibration,
       .help = "calibration sequences",
       .fits = [](const C& c) { return c.samples > 0; },
       .range = "give a positive number of sequences"},
      {.key = "sequence_length",
       .access = access(&C::sequence_length),
       .group = Group::calibration,
       .help = "tokens of a sequence",
       .fits = [](const C& c) { return c.sequence_length > 0; },
       .range = "give a positive number of tokens"},
      {.key = "seed",
       .access = access(&C::seed),
       .group = Group::calibration,
       .help = "which sequences; 0: spread evenly"},
  };
}

// The rows that a Job, an Evaluation and a Generation have in common.
template <typename Struct>
std::vector<Option<Struct>> device_rows() {
  using S = Struct;
  return {
      {.key = "device_map",
       .access = access(&S::device_map),
       .group = Group::devices,
       .help = "JSON of modules to devices, a file with it, a device, or auto, balanced, balanced_low_0, sequential",
       .more =
           "Without it: the current accelerator, or the CPU. `--device` is the same flag. See [offload](offload.md)."},
      {.key = "max_memory",
       .access = access(&S::max_memory),
       .group = Group::devices,
       .help = R"(JSON of devices to sizes: {"cuda:0": "20GiB", "cpu": "64GiB"})"},
      {.key = "precision",
       .access = access(&S::precision),
       .group = Group::devices,
       .help = "fp32, bf16, fp16; auto: the checkpoint's if fast",
       .more = "Of the forward pass."},
      {.key = "ignore_config_keys",
       .access = access(&S::ignore_config_keys),
       .group = Group::devices,
       .help = "keys of config.json, with commas, that may be left unread",
       .more = "An unknown key that may change the computation ends a job, unless it is named here."},
      {.key = "threads",
       .access = access(&S::threads),
       .group = Group::devices,
       .help = "0: all cores",
       .fits = [](const S& s) { return s.threads >= 0; },
       .range = "give a positive number, or 0 for all cores"},
  };
}

std::vector<Option<Job>> job_rows() {
  using J = Job;
  std::vector<Option<J>> rows = device_rows<J>();
  const std::vector<Option<J>> others = {
      {.key = "batch_size",
       .access = access(&J::batch_size),
       .group = Group::devices,
       .help = "sequences at a time; 0: 2048 tokens or 8192",
       .more = "8192 tokens on a GPU or a CPU with AMX.",
       .fits = [](const J& j) { return j.batch_size >= 0; },
       .range = "give a positive number of sequences, or 0 to choose"},
      {.key = "spill_dir",
       .access = access(&J::spill_dir),
       .group = Group::devices,
       .help = "folder for hidden states that find no room in memory"},
      {.key = "max_read_rate",
       .access = bytes_access(&J::max_read_rate),
       .group = Group::devices,
       .help = "bytes a second read from the model's disk, such as 200MB",
       .initial = kNoInitial,
       .fits = [](const J& j) { return j.max_read_rate >= 0; },
       .range = "give a positive size a second, or 0 for no limit"},
      {.key = "from_quantized",
       .access = access(&J::from_quantized),
       .group = Group::devices,
       .help = "take a model that is quantized already: its weights are rounded a second time",
       .more = "For a model that is published in no other form; the run warns."},
      {.key = "loader",
       .access = access(&J::loader),
       .group = Group::output,
       .help = "a loader that must take the output: vllm, sglang, transformers, gptqmodel, exllamav2",
       .on = "for",
       .more = "A job that it would not take is refused before it runs, and chosen bits keep to its widths."},
      {.key = "max_shard_size",
       .access = bytes_access(&J::max_shard_bytes),
       .group = Group::output,
       .help = "of one safetensors file",
       .initial = "5GB",
       .fits = [](const J& j) { return j.max_shard_bytes > 0; },
       .range = "give a positive size, such as 5GB"},
      {.key = "overwrite",
       .access = access(&J::overwrite),
       .group = Group::output,
       .help = "replace OUT once the new one is whole; remove OUT.partial of a run that ended early"},
      {.key = "resume",
       .access = access(&J::resume),
       .group = Group::output,
       .help = "continue a run that ended early from its last block; leave OUT.partial to continue"},
      {.key = "checkpoint_states",
       .access = access(&J::checkpoint_states),
       .group = Group::output,
       .help = "save the hidden states between blocks, for resuming sooner",
       .more = "As often as a twentieth of the time allows. Without it, finished blocks are run forward again."},
      {.key = "final_check",
       .access = access(&J::final_check),
       .group = Group::output,
       .off_help = "do not compare the output with the original at the end",
       .more = "A few sequences of the calibration's text are compared."},
      {.key = "skip_existing",
       .access = access(&J::skip_existing),
       .group = Group::output,
       .help = "end at once if OUT is there and has this recipe"},
  };
  rows.insert(rows.end(), others.begin(), others.end());
  return rows;
}

std::vector<Option<Evaluation>> evaluation_rows() {
  using E = Evaluation;
  std::vector<Option<E>> rows = {
      {.key = "text_key",
       .access = access(&E::text_key),
       .group = Group::evaluation,
       .help = "key or column that has the text of a record (as --calibration-key)"},
      {.key = "context",
       .access = access(&E::context),
       .group = Group::evaluation,
       .help = "tokens of a window; 0: 2048, or the model's positions if fewer",
       .fits = [](const E& e) { return e.context == 0 || e.context >= 2; },
       .range = "a window needs at least 2 tokens to predict one"},
      {.key = "windows",
       .access = access(&E::windows),
       .group = Group::evaluation,
       .help = "at most so many windows of a text; 0: all",
       .fits = [](const E& e) { return e.windows >= 0; },
       .range = "give a positive number, or 0 for all"},
  };
  const std::vector<Option<E>> devices = device_rows<E>();
  rows.insert(rows.end(), devices.begin(), devices.end());
  return rows;
}

std::vector<Option<Generation>> generation_rows() {
  using G = Generation;
  std::vector<Option<G>> rows = {
      {.key = "tokens",
       .access = access(&G::tokens),
       .group = Group::generation,
       .help = "new tokens, at most",
       .fits = [](const G& g) { return g.tokens > 0; },
       .range = "give a positive number of tokens"},
      {.key = "temperature",
       .access = access(&G::temperature),
       .group = Group::generation,
       .help = "0: always the most likely token; 1: as likely as the model has it",
       .fits = [](const G& g) { return g.temperature >= 0 && g.temperature <= kMostTemperature; },
       .range = "give a number from 0 to 100"},
      {.key = "top_k",
       .access = access(&G::top_k),
       .group = Group::generation,
       .help = "choose among so many of the most likely tokens; 0: all",
       .fits = [](const G& g) { return g.top_k >= 0; },
       .range = "give a positive number of tokens, or 0 for all"},
      {.key = "top_p",
       .access = access(&G::top_p),
       .group = Group::generation,
       .help = "choose among the fewest tokens that have this probability together",
       .fits = [](const G& g) { return g.top_p > 0 && g.top_p <= 1; },
       .range = "it is a probability, more than 0 and at most 1"},
      {.key = "seed",
       .access = access(&G::seed),
       .group = Group::generation,
       .help = "of the choices: same seed, same text"},
  };
  const std::vector<Option<G>> devices = device_rows<G>();
  rows.insert(rows.end(), devices.begin(), devices.end());
  return rows;
}

}  // namespace

template <>
const std::vector<Option<Recipe>>& option_rows() {
  static const auto rows = [] {
    std::vector<Option<Recipe>> all = grid_rows();
    for (const auto& part : {solving_rows(), module_rows()}) all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return rows;
}
template <>
const std::vector<Option<Calibration>>& option_rows() {
  static const auto rows = calibration_rows();
  return rows;
}
template <>
const std::vector<Option<Job>>& option_rows() {
  static const auto rows = job_rows();
  return rows;
}
template <>
const std::vector<Option<Evaluation>>& option_rows() {
  static const auto rows = evaluation_rows();
  return rows;
}
template <>
const std::vector<Option<Generation>>& option_rows() {
  static const auto rows = generation_rows();
  return rows;
}

}  // namespace gptq
