// Bits that are chosen step by step for a mean over the model (Recipe::average_bits): what is up for choice, and what a
// choice makes of the recipe.
#pragma once

#include <vector>

#include "data/batches.h"
#include "format/loaders.h"
#include "plan/facts.h"
#include "quant/bit_choice.h"

namespace gptq {

// The linears of a step whose bits are up for choice: no rule of the recipe names them.
std::vector<LinearSpec> free_linears(const Recipe& recipe, const std::vector<LinearSpec>& step);

// What Recipe::average_bits leaves to the linears that no rule names.
double free_average(const Recipe& recipe, const StepSpecs& steps);

// The widths up for choice, rising: those on both sides of that average and the next above, of all that the format, the
// linears' sizes and Job::loader allow. Throws InputError where they do not enclose it.
std::vector<int> candidate_widths(const Job& job, const StepSpecs& steps);

// What may come of it, for loaders that take each width but not several side by side: the widths step by step in turn.
std::vector<StoredLinear> mixture(const Job& job, const std::vector<int>& widths, const ModelConfig& config);

// The same job with `bits` for whatever is up for choice.
Job at_width(const Job& job, int bits);

// What the first of facts.widths has of the weights where the two around the average share them, for a plan.
double share_of_least(const Facts& facts);

// Sequences that the measuring takes of the calibration, in batches: the first is the probes'.
std::vector<std::vector<TokenSequence>> measuring_batches(const std::vector<TokenSequence>& sequences);

// The recipe's `bits` and `dynamic` for what was measured: the width of most weights, and rules for the rest behind the
// recipe's own. chosen: the bits of each step.
Recipe with_choice(const Recipe& recipe, const std::vector<ProbedStep>& steps, const std::vector<int>& chosen);

}  // namespace gptq
