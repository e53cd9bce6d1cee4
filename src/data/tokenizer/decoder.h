// Decoders: token texts back to plain text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // The tokens as they read after this step; all steps done, their concatenation is the text.
  virtual std::vector<std::string> apply(std::vector<std::string> tokens) const = 0;
};

// From tokenizer.json's "decoder", null included (tokens are then joined by spaces). Throws UnsupportedError naming a
// type that is not known.
std::unique_ptr<Decoder> make_decoder(const nlohmann::json& description);

}  // namespace gptq
