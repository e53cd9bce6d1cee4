// The experts that each token passes, and their weights.
#pragma once

#include <vector>

#include "model/batch.h"

namespace gptq {

// Routes tokens by a router's logits [tokens, experts] f32 on the host. choice_bias [experts] may be empty. Among equal
// experts the first ones are chosen; but if all logits of a token are equal, its position decides, so that runs that
// only count have balanced experts.
Routing route(const std::vector<float>& logits, const std::vector<float>& choice_bias, const ExpertRow& row,
              const Experts& experts);

}  // namespace gptq
