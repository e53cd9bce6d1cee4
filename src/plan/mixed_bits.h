// Bit widths chosen per step for a mean over the model (Recipe::average_bits): the candidates, and the recipe that
// results from a choice.
#pragma once

#include <vector>

#include "data/batches.h"
#include "format/loaders.h"
#include "gptq/gptq.h"
#include "quant/bit_choice.h"

namespace gptq {

// The linears of a step whose bits are chosen: those that no rule of the recipe names.
std::vector<LinearSpec> free_linears(const Recipe& recipe, const std::vector<LinearSpec>& step);

// The mean bits that Recipe::average_bits leaves for the linears without a rule.
double free_average(const Recipe& recipe, const StepSpecs& steps);

// The candidate widths, ascending: the neighbours of that average and the next larger one, among those that the format,
// the linears' sizes and Job::loader allow. Throws InputError if they do not enclose the average.
std::vector<int> candidate_widths(const Job& job, const StepSpecs& steps);

// A possible result, to test loaders that accept each width but not a mixture: the widths alternate by step.
std::vector<StoredLinear> mixture(const Job& job, const std::vector<int>& widths, const ModelConfig& config);

// The recipe, or the job with the recipe, with `bits` for all linears whose bits are chosen.
Recipe at_width(Recipe recipe, int bits);
Job at_width(const Job& job, int bits);

// The share of weights with the first of `widths` if the two around the average divide them; for a plan.
double share_of_least(const std::vector<int>& widths, double free_average);

// The sequences used for measuring, in batches; the first batch is also for probes.
std::vector<std::vector<TokenSequence>> measuring_batches(const std::vector<TokenSequence>& sequences);

// The recipe with the chosen widths: `bits` is that of most weights, and rules for the others follow the recipe's own.
// chosen: the bits of each step.
Recipe with_choice(const Recipe& recipe, const std::vector<ProbedStep>& steps, const std::vector<int>& chosen);

}  // namespace gptq
