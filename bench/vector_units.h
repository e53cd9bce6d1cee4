// Loops that keep one kind of vector unit busy with multiply-adds on registers alone: what no product can exceed.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace gptq {

// A round is `flops` operations on inputs of one dtype; sums are f32, start in memory [256], which holds finite values,
// and end there.
struct VectorUnit {
  const char* name;
  DType inputs;
  double flops;
  void (*loop)(int64_t rounds, float* memory);
};

// With one thread, processor time: what else the machine runs then disturbs little. With several, time on the wall.
double seconds_now(int threads);

struct Peaks {
  double f32 = 0, bf16 = 0;  // flops per second of the fastest unit for these inputs; 0 where none is known
};
// Of `threads` threads at once, printed a line each; each unit is tried for so many seconds.
Peaks measure_peaks(int threads, double seconds);

// Those of this processor; empty on others than x86-64. Asks the kernel for AMX, so call it before starting threads.
std::vector<VectorUnit> vector_units();

}  // namespace gptq
