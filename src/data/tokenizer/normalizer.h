// Normalizers: rewrite text before it is split into words.
#pragma once

#include <string>

namespace gptq {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string text) const = 0;
};

}  // namespace gptq
