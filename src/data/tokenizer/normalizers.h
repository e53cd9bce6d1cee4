// The normalizers of tokenizer.json.
#pragma once

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/normalizer.h"

namespace gptq {

// From tokenizer.json's "normalizer", which may be null. Throws UnsupportedError with the name of an unsupported type.
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& description);

}  // namespace gptq
