// The output: which linears are quantized and how, and its tensors in order.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "format/loaders.h"
#include "plan/facts.h"
#include "recipe/rules.h"

namespace gptq {

struct Layout {
  std::map<std::string, QuantizedLinear> quantized;  // by name
  // Source tensors replaced in the output, and the linears each becomes; likewise for split biases.
  std::map<std::string, std::vector<std::string>> replaced, split_biases;
  std::vector<StoredLinear> linears;      // of all blocks and the head, as stored in the output
  std::vector<ModuleRule> written_rules;  // the recipe's rules, with those for fused names
  OutputLayout output;                    // its tensors, in their order
  int64_t quantized_weights = 0, output_bytes = 0;
  double bits_per_weight = 0;
  std::vector<Notice> notices;

  bool is_quantized(const LinearSpec& linear) const { return quantized.count(linear.name) != 0; }
};

// Throws InputError if the recipe, its rules and the model contradict each other.
Layout lay_out(const Job& job, const Facts& facts);

// The layout shown by a plan: the job's own; if bits are chosen, that of the width above the average, with the sizes of
// the average. Throws InputError if Job::loader does not accept it.
Layout planned_layout(const Job& job, const Facts& facts);

// A job's facts and its planned layout. The job's recipe gets the choices that depend on the model, as in find_facts().
struct Setup {
  Facts facts;
  Layout layout;
};
Setup set_up(Job& job);

// The record of how the output was made.
OutputRecord output_record(const Job& job, const Facts& facts, const Layout& layout);

}  // namespace gptq
