// What a config.json must agree with before anything is made by its sizes: float arithmetic, and its checkpoint.
#pragma once

#include "model/architecture.h"

namespace gptq {

class Keys;

// Throws InputError for a scale, a slope or a rope that is not finite, although each key is within its limits; and for
// heads that are together wider than any vector.
void check_numbers(const Keys& keys, const ModelConfig& config);

// Compares the counts with the names and shapes in the checkpoint's headers. Throws InputError with the key, its value
// and the tensor for another vocabulary, hidden size or number of positions, and for blocks or experts without tensors.
// Whatever has a list per block and expert is then no longer than the headers imply.
void check_counts(const Keys& keys, const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace gptq
