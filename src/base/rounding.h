// Integer division that rounds up.
#pragma once

#include <type_traits>

namespace gptq {

template <typename Integer>
constexpr Integer pieces_of(Integer size, std::type_identity_t<Integer> piece) {
  return (size + piece - 1) / piece;
}
template <typename Integer>
constexpr Integer rounded_up(Integer size, std::type_identity_t<Integer> unit) {
  return pieces_of(size, unit) * unit;
}

}  // namespace gptq
