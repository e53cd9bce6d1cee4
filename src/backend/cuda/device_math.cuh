// Element types on the device: loads that widen to f32 exactly, and stores that round once, ties to even. Functions
// that kernels share.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "tensor/matrix.h"

namespace gptq::cuda {

__device__ inline float widened(float value) { return value; }
__device__ inline float widened(__half value) { return __half2float(value); }
__device__ inline float widened(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void store(float* to, float value) { *to = value; }
__device__ inline void store(__half* to, float value) { *to = __float2half_rn(value); }
__device__ inline void store(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

// A strided float matrix whose element type is known at run time only: for rare or small operands.
struct AnyRows {
  void* data;
  DType dtype;
  int64_t stride;
  __device__ float get(int64_t r, int64_t c) const {
    const int64_t i = r * stride + c;
    if (dtype == DType::f16) return widened(static_cast<const __half*>(data)[i]);
    if (dtype == DType::bf16) return widened(static_cast<const __nv_bfloat16*>(data)[i]);
    return static_cast<const float*>(data)[i];
  }
  __device__ void set(int64_t r, int64_t c, float value) const {
    const int64_t i = r * stride + c;
    if (dtype == DType::f16) return store(static_cast<__half*>(data) + i, value);
    if (dtype == DType::bf16) return store(static_cast<__nv_bfloat16*>(data) + i, value);
    static_cast<float*>(data)[i] = value;
  }
};
inline AnyRows any_rows(MatrixView m) { return {m.data, m.dtype, m.stride}; }
inline AnyRows any_rows(ConstMatrixView m) { return {const_cast<void*>(m.data), m.dtype, m.stride}; }  // to be read

// Calls body(T{}) with the element type of a float dtype.
template <typename Body>
void with_element(DType dtype, Body body) {
  if (dtype == DType::f32) body(float{});
  if (dtype == DType::f16) body(__half{});
  if (dtype == DType::bf16) body(__nv_bfloat16{});
}

constexpr float kLog2E = 1.4426950408889634F;

// 2^x, wrong by at most 2^-22 of it; 0 where that is subnormal.
__device__ inline float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(power) : "f"(x));
  return power;
}

// The sum, or the maximum, over a warp, in every lane.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) value += __shfl_xor_sync(0xffffffffU, value, lane);
  return value;
}
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, lane));
  return value;
}

}  // namespace gptq::cuda
