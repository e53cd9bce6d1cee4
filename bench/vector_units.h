// What no product of a whole run can exceed: loops that keep one kind of vector unit busy with multiply-adds on
// registers alone, and the CPU backend's product kernels on panels that stay in the first cache.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace gptq {

// A round is `flops` operations on inputs of one dtype; sums are f32, start in memory [kFloats], which holds finite
// values, and end there.
struct VectorUnit {
  static constexpr int kFloats = 384;
  const char* name;
  DType inputs;
  double flops;
  void (*loop)(int64_t rounds, float* memory);
};

// With one thread, processor time: what else the machine runs then disturbs little. With several, time on the wall.
double seconds_now(int threads);

// Flops per second: of the fastest unit for these inputs, 0 where none is known, and of the kernel.
struct Peak {
  double registers = 0, kernel = 0;
};
struct Peaks {
  Peak f32, bf16;
};
// Of `threads` threads at once, printed a line each; each unit and kernel is tried for so many seconds.
Peaks measure_peaks(int threads, double seconds);

// Those of this processor; empty on others than x86-64. Asks the kernel for AMX, so call it before starting threads.
std::vector<VectorUnit> vector_units();

}  // namespace gptq
