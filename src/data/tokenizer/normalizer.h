// Normalizers: rewrite text before it is split into words.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string text) const = 0;
};

// From tokenizer.json's "normalizer", which may be null. Throws UnsupportedError with the name of an unsupported type.
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& description);

}  // namespace gptq
