// How weights become codes, as far as a user decides it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gptq {

enum class Method : uint8_t { gptq, rtn };                      // rtn: round to nearest, no calibration
enum class ScaleSearch : uint8_t { diag, mse, minmax };         // diag: errors weighted with the Hessian's diagonal
enum class Order : uint8_t { diagonal, group_aware, natural };  // of the columns; never visible in the file
// Targets of the codes: the weights, or weights that compensate the error of earlier blocks, exactly (W + alpha W dC
// inv(H), as Qronos, arXiv 2505.11695) or by GPTAQ's formula (arXiv 2504.02692).
enum class Targets : uint8_t { weights, corrected, gptaq };

// Overrides for the modules whose full names a pattern matches: GPTQModel's `dynamic`.
struct ModuleRule {
  std::string pattern;  // a regular expression, matched at the start of names such as "model.layers.0.mlp.down_proj"
  bool skip = false;    // they stay as they are
  std::optional<int> bits;
  std::optional<int64_t> group_size;
  std::optional<bool> sym, desc_act;
};

// Names and meanings are those of Optimum's GPTQQuantizer where it has them. Each member has a row in the table of
// src/recipe/options.cpp.
struct Recipe {
  Method method = Method::gptq;
  int bits = 4;             // 2, 3, 4 or 8
  double average_bits = 0;  // 0: `bits`; else bits are measured and chosen step by step for this mean
  // Inputs that share a scale; -1: all. Empty: the largest of 128, 64 and 32 that divides the inputs of all linears
  // without a rule of their own.
  std::optional<int64_t> group_size;
  bool sym = true;
  ScaleSearch scale_search = ScaleSearch::diag;
  Order order = Order::diagonal;
  bool static_groups = true;   // all scales before the first column; false: a group's scale when its first column comes
  bool desc_act = false;       // falling diagonal with groups in that order: shuffled g_idx
  double damp_percent = 0.01;  // of the Hessian's mean diagonal, added to the diagonal
  bool true_sequential = true;
  std::vector<std::vector<std::string>> modules_in_block_to_quantize;  // {{"self_attn.q_proj", ...}, ...}; empty: all
  // "gptq", "gptq_v2" or "compressed-tensors" (its pack-quantized form, of 4 and 8 bits); "auto": gptq when sym,
  // gptq_v2 otherwise.
  std::string checkpoint_format = "auto";
  Targets targets = Targets::weights;  // the others take a second stream of states through the unquantized blocks
  // Symmetric scales may be negative: code 0 then stands for the largest weight. Empty: at 2 and 3 bits.
  std::optional<bool> signed_scales;
  // Stages after the columns, in this order: "r" refits the scales to the codes, "cN" is N sweeps of coordinate descent
  // over the codes: "r c2 r". "none": nothing. Empty: "c4" at 3 bits, "r c2 r c2 r" at 2, else nothing.
  std::string refine;
  std::optional<double> alpha;  // share of the correction; empty: 0.5, at 2 bits 0.25
  // Columns that no calibration token activates are rounded to nearest; false: their weights become 0, as in the paper.
  bool round_dead_columns = true;
  bool lm_head = false;  // the output head too; refused where it is the embedding
  // Experts routed fewer tokens than this are calibrated on all tokens instead, and reported.
  int64_t expert_tokens = 256;
  bool moe_calibrate_all_experts = false;  // every token counts for every expert, in the statistics only
  std::vector<ModuleRule> dynamic;         // the first that matches a module counts
};

// "default" (the measured best of one stream), "best" (with corrected targets), "paper" (Frantar et al., 2022) or
// "group-aware" (GPTQModel's default).
Recipe recipe_preset(const std::string& name);

// A recipe file: a JSON object of Recipe's fields by their names, `dynamic` as GPTQModel writes it ({"pattern":
// {"bits": 8}, "-:pattern": {}}), perhaps a `preset`. Keys that it lacks come from that preset, or from `base` without
// one. A quantize_config.json is such a file. Throws InputError that names the file and the key.
Recipe read_recipe(const std::string& file, const Recipe& base = {});

}  // namespace gptq
