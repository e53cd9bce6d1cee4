// C handles with owners.
#pragma once

#include <memory>
#include <type_traits>

namespace gptq::cuda {

// A C handle that is destroyed with its owner.
template <typename Handle, auto destroy>
struct Destroy {
  void operator()(Handle handle) const { destroy(handle); }
};
template <typename Handle, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<Handle, destroy>>;

}  // namespace gptq::cuda
