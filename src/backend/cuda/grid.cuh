// Operands of kernels on grids.
#pragma once

#include <cstdint>

#include "backend/cuda/device_math.cuh"
#include "ops/grid.h"

namespace gptq::cuda {

struct FloatRows {
  const float* data;
  int64_t stride;
  __device__ const float* row(int64_t r) const { return data + r * stride; }
};
inline FloatRows float_rows(ConstMatrixView m) { return {static_cast<const float*>(m.data), m.stride}; }

struct GridRows {
  const float* scales;
  const uint8_t* zeros;
  int64_t scale_stride, zero_stride;
  float top;  // the largest code
};
inline GridRows grid_rows(const Grid& grid) {
  return {static_cast<const float*>(grid.scales.data), static_cast<const uint8_t*>(grid.zeros.data), grid.scales.stride,
          grid.zeros.stride, static_cast<float>((1 << grid.bits) - 1)};
}

inline unsigned blocks_for(int64_t tasks, int64_t each) { return static_cast<unsigned>((tasks + each - 1) / each); }

}  // namespace gptq::cuda
