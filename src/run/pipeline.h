// Quantizing a model: block by block, each token through each linear once. The public entry is quantize() in gptq.h;
// this is its body in parts that tests can take on their own.
#pragma once

#include <memory>
#include <vector>

#include "data/calibration.h"
#include "gptq/gptq.h"
#include "model/block.h"
#include "quant/format.h"

namespace gptq {

// Sequences of one length side by side, in the order given, each batch of about `tokens` tokens (batch_size sequences
// where given).
std::vector<std::vector<TokenSequence>> make_batches(const std::vector<TokenSequence>& sequences, int64_t batch_size);

// Whether the recipe quantizes this linear (name relative to its block: "self_attn.q_proj").
bool is_selected(const Recipe& recipe, const LinearSpec& linear);

}  // namespace gptq
