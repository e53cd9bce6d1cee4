// Which experts each token passes, and how much each counts.
#pragma once

#include <vector>

#include "model/batch.h"

namespace gptq {

// From a router's logits [tokens, experts] f32 on the host, row by row. choice_bias: of each expert, or empty. Of equal
// experts the first are chosen, but where all logits of a token are equal, it is the token's place that says: what a
// run that only counts sees, then has all experts equally busy.
Routing route(const std::vector<float>& logits, const std::vector<float>& choice_bias, const Architecture& row,
              const Experts& experts);

}  // namespace gptq
