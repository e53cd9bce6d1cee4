// Which token comes next.
#pragma once

#include <cstdint>
#include <span>

#include "gptq/generate.h"

namespace gptq {

class Sampler {
 public:
  explicit Sampler(const Generation& generation);

  // A token for these logits: the first of the most likely ones at temperature 0, else one drawn from
  // softmax(logits / temperature), cut to top_k tokens and then to top_p. Throws Error for logits that are not numbers.
  int32_t choose(std::span<const float> logits);

 private:
  double draw();  // in [0, 1)

  double temperature_, top_p_;
  int64_t top_k_;
  uint64_t state_;
};

}  // namespace gptq
