// Whole numbers in JSON that are checked: the JSON library's get<int>() cuts fractions and what does not fit.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include <nlohmann/json.hpp>

#include "io/json.h"

namespace gptq {

// Whether it is written as a whole number, of any size, and lies between.
inline bool is_whole(const Json& value, int64_t least, int64_t most) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  const auto number = value.get<int64_t>();
  return number >= least && number <= most;
}

// A whole number that `Integer` holds, also where it is written as 4.0. Throws Json::type_error for anything else.
template <typename Integer>
Integer whole_number(const Json& value) {
  constexpr Integer kLeast = std::numeric_limits<Integer>::min(), kMost = std::numeric_limits<Integer>::max();
  constexpr double kExact = 9007199254740992;  // 2^53
  bool fits = false;
  if (value.is_number_unsigned()) {
    fits = value.get<uint64_t>() <= static_cast<uint64_t>(kMost);
  } else if (value.is_number_integer()) {
    const auto number = value.get<int64_t>();
    fits = number < 0 ? kLeast < 0 && number >= static_cast<int64_t>(kLeast)
                      : static_cast<uint64_t>(number) <= static_cast<uint64_t>(kMost);
  } else if (value.is_number_float()) {
    const auto number = value.get<double>();
    fits = std::trunc(number) == number && std::abs(number) <= kExact && number >= static_cast<double>(kLeast) &&
           number <= static_cast<double>(kMost);
  }
  if (!fits) throw Json::type_error::create(302, "a whole number was expected", &value);
  return value.get<Integer>();
}

}  // namespace gptq
