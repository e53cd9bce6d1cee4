// Sequences in batches: what passes the blocks together.
#pragma once

#include <cstdint>
#include <vector>

#include "data/calibration.h"

namespace gptq {

// Consecutive sequences of one length, in the order given: about `batch_tokens` tokens a batch, or `batch_size`
// sequences where that is not 0.
std::vector<std::vector<TokenSequence>> make_batches(const std::vector<TokenSequence>& sequences, int64_t batch_size,
                                                     int64_t batch_tokens);

int64_t count_tokens(const std::vector<TokenSequence>& sequences);

}  // namespace gptq
