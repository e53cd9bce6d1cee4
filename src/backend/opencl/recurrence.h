// Work-groups that take a state through the tokens of a sequence, a column of the state for each thread.
#pragma once

#include <string>

#include "backend/opencl/xpu.h"
#include "base/error.h"

namespace gptq::opencl {

// The threads of a work-group, a power of two up to 32, whose columns of `state` elements and `shared` more fit local
// memory as f32. Throws UnsupportedError where one column does not.
inline int64_t threads_for(const Xpu& xpu, int64_t state, int64_t shared) {
  constexpr int64_t kMost = 32;
  const int64_t room = xpu.device().local_memory / static_cast<int64_t>(sizeof(float));
  for (int64_t threads = kMost; threads > 0; threads /= 2) {
    if (state * threads + shared <= room) return threads;
  }
  throw UnsupportedError(cat(xpu.name(), ": states of ", state, " elements do not fit its local memory of ",
                             xpu.device().local_memory, " bytes; the device cpu has room"));
}

inline LocalBytes local_floats(int64_t count) { return {static_cast<size_t>(count) * sizeof(float)}; }

}  // namespace gptq::opencl
