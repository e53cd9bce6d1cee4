// Normalizers: rewrite text before it is split into words.
#pragma once

#include <string>

#include "data/tokenizer/budget.h"

namespace gptq {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Throws InputError if the text exceeds its budget.
  virtual std::string apply(std::string text, Budget& budget) const = 0;
};

}  // namespace gptq
