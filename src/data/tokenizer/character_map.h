// The normalizer "Precompiled": SentencePiece's map of characters to other texts.
#pragma once

#include <memory>

#include "data/tokenizer/normalizer.h"

namespace gptq {

// From its "precompiled_charsmap": in base64 a double-array trie (darts-clone) over the texts to replace, and what
// replaces them. Throws InputError for one that is broken.
std::unique_ptr<Normalizer> make_character_map(const nlohmann::json& description);

}  // namespace gptq
