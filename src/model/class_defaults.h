// Sizes that transformers 5.24 takes where config.json has none. It leaves those of a nested config out when it writes
// one, so a multimodal model's text_config may lack what every other config.json has.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptq {

// 0: no default, or one that follows from the others.
struct ClassDefaults {
  int64_t hidden = 0, intermediate = 0, blocks = 0, heads = 0, key_heads = 0, head_dim = 0, vocabulary = 0,
          positions = 0;
};

// Those of the config class of a model_type; all 0 for one that transformers does not have.
ClassDefaults class_defaults(std::string_view model_type);

}  // namespace gptq
