// Normalizers: rewrite text before it is cut into words.
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

// From tokenizer.json's "normalizer", null included. Throws UnsupportedError naming a type that is not known.
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& description);

}  // namespace gptq
