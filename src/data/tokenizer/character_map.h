// The normalizer "Precompiled": SentencePiece's map of characters to other texts.
#pragma once

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/normalizer.h"

namespace gptq {

// From its "precompiled_charsmap": base64 of a double-array trie (darts-clone) over the texts to replace, and their
// replacements. Throws InputError if it is broken.
std::unique_ptr<Normalizer> make_character_map(const nlohmann::json& description);

}  // namespace gptq
