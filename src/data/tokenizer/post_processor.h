// Post-processors: the special tokens around a text.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// All that a post-processor does to ids is to put some before and some after them.
struct SpecialTokens {
  std::vector<int32_t> before, after;
};

// From tokenizer.json's "post_processor", null included. Throws UnsupportedError naming a type that is not known.
SpecialTokens read_post_processor(const nlohmann::json& description);

}  // namespace gptq
