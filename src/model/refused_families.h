// Families of transformers that have no row, and why: for messages and for docs/families.md.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace gptq {

struct RefusedFamilies {
  std::vector<std::string_view> model_types;
  std::string_view reason;  // "is an encoder ..."
};
std::span<const RefusedFamilies> refused_families();

// The reason for a model_type, or empty.
std::string_view refusal_of(std::string_view model_type);

}  // namespace gptq
