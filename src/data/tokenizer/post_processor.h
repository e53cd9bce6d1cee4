// Post-processors: the special tokens around a text.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// Ids that a post-processor adds before and after those of a text.
struct SpecialTokens {
  std::vector<int32_t> before, after;
};

// From tokenizer.json's "post_processor", which may be null. Throws UnsupportedError with the name of an unsupported
// type.
SpecialTokens read_post_processor(const nlohmann::json& description);

}  // namespace gptq
