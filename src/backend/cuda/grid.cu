// Grids: the search for them, and values on them.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/grid.cuh"
#include "ops/grid.h"

namespace gptq::cuda {
namespace {

// The scale that fp16 holds, as reference() has it.
__device__ float stored_scale(float scale) {
  return copysignf(fminf(fmaxf(fabsf(__half2float(__float2half_rn(scale))), 0x1p-24F), 65504.0F), scale);
}

// One warp per row and group. Up to kHeld weights of the group are in each lane's registers; a longer group is read
// again for each candidate. Limited by arithmetic: about ten instructions for each weight and candidate.
constexpr int kHeld = 8;
constexpr int kGridWarps = 8;

struct GridArguments {
  FloatRows w;
  const float* importance;
  int64_t rows, groups, group_size;
  float* scales;
  uint8_t* zeros;
  int64_t scale_stride, zero_stride;
  float top, shrink_step, norm;
  int candidates;
  bool symmetric, signed_scales, search_zeros;
};

template <bool kSquare>
__device__ float weighted_error(float value, float importance, float scale, float inverse, float low, float high,
                                float norm) {
  const float q = fminf(fmaxf(rintf(value * inverse), low), high);
  const float error = fmaf(scale, q, -value);
  if (kSquare) return importance * error * error;
  return error == 0 ? 0 : importance * exp2f(norm * log2f(fabsf(error)));
}

template <bool kInRegisters, bool kSquare>
__global__ void __launch_bounds__(kGridWarps * 32) find_grid_kernel(GridArguments a) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kGridWarps + threadIdx.x / 32;
  if (task >= a.rows * a.groups) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t row = task / a.groups, group = task - row * a.groups;
  const float* w = a.w.row(row) + group * a.group_size;
  const float* importance = a.importance == nullptr ? nullptr : a.importance + group * a.group_size;

  float values[kHeld], weights[kHeld];
  float lo = 0, hi = 0;
  if (kInRegisters) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int k = i * 32 + lane;
      const bool there = k < a.group_size;
      values[i] = there ? w[k] : 0;
      weights[i] = !there ? 0 : importance == nullptr ? 1 : importance[k];
      lo = fminf(lo, values[i]);
      hi = fmaxf(hi, values[i]);
    }
  } else {
    for (int64_t k = lane; k < a.group_size; k += 32) {
      lo = fminf(lo, w[k]);
      hi = fmaxf(hi, w[k]);
    }
  }
  lo = -warp_max(-lo);
  hi = warp_max(hi);
  if (lo == 0 && hi == 0) lo = -1, hi = 1;
  const float middle = (a.top + 1) / 2;
  const bool has_sign = a.symmetric && a.signed_scales;
  const float widest = has_sign ? (-lo >= hi ? -lo : -hi) : a.symmetric ? 2 * fmaxf(-lo, hi) : hi - lo;
  const float steps = has_sign ? middle : a.top;
  // Each candidate is tried `tries` times: with both signs, or with three zeros.
  const int tries = has_sign && a.candidates > 1 ? 2 : !a.symmetric && a.search_zeros ? 3 : 1;

  float best_scale = 0, best_zero = 0, least = INFINITY;
  for (int i = 0; i < a.candidates * tries; ++i) {
    const float p = 1 - static_cast<float>(i / tries) * a.shrink_step;
    const int attempt = i % tries;
    const float scale = stored_scale(widest * (has_sign && attempt == 1 ? -1.05F * p : p) / steps);
    const float step = attempt == 0 ? 0.0F : attempt == 1 ? -1.0F : 1.0F;
    const float zero = a.symmetric ? middle : fminf(fmaxf(rintf(-lo * p / scale) + step, 0.0F), a.top);
    float error = 0;
    if (a.candidates * tries > 1) {
      const float inverse = 1 / scale, low = -zero, high = a.top - zero;
      if (kInRegisters) {
#pragma unroll
        for (int j = 0; j < kHeld; ++j) {
          if (j * 32 >= a.group_size) break;
          error += weighted_error<kSquare>(values[j], weights[j], scale, inverse, low, high, a.norm);
        }
      } else {
        for (int64_t k = lane; k < a.group_size; k += 32) {
          error += weighted_error<kSquare>(w[k], importance == nullptr ? 1 : importance[k], scale, inverse, low, high,
                                           a.norm);
        }
      }
      error = warp_sum(error);
    }
    if (i > 0 && !(error < least)) continue;
    least = error;
    best_scale = scale;
    best_zero = zero;
  }
  if (lane != 0) return;
  a.scales[row * a.scale_stride + group] = best_scale;
  a.zeros[row * a.zero_stride + group] = static_cast<uint8_t>(best_zero);
}

void find_grid(Gpu& gpu, const ops::FindGrid& op) {
  if (op.scales.empty()) return;
  const GridArguments arguments = {
      .w = float_rows(op.w),
      .importance = op.importance.empty() ? nullptr : static_cast<const float*>(op.importance.data),
      .rows = op.scales.rows,
      .groups = op.scales.cols,
      .group_size = op.group_size,
      .scales = static_cast<float*>(op.scales.data),
      .zeros = static_cast<uint8_t*>(op.zeros.data),
      .scale_stride = op.scales.stride,
      .zero_stride = op.zeros.stride,
      .top = static_cast<float>((1 << op.search.bits) - 1),
      .shrink_step = op.search.shrink_step,
      .norm = op.search.norm,
      .candidates = op.search.candidates,
      .symmetric = op.search.symmetric,
      .signed_scales = op.search.signed_scales,
      .search_zeros = op.search.search_zeros};
  const unsigned blocks = blocks_for(op.scales.size(), kGridWarps);
  const bool in_registers = op.group_size <= kHeld * 32, square = op.search.norm == 2;
  const auto kernel = in_registers ? (square ? find_grid_kernel<true, true> : find_grid_kernel<true, false>)
                                   : (square ? find_grid_kernel<false, true> : find_grid_kernel<false, false>);
  kernel<<<blocks, kGridWarps * 32, 0, gpu.stream()>>>(arguments);
}

// A thread per element; limited by memory bandwidth.
constexpr int kThreads = 256;

__global__ void round_columns_kernel(FloatRows w, int64_t rows, int64_t cols, const int32_t* groups, GridRows grid,
                                     uint8_t* codes, int64_t code_stride) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * cols) return;
  const int64_t r = i / cols, c = i - r * cols;
  const float scale = grid.scales[r * grid.scale_stride + groups[c]];
  const auto zero = static_cast<float>(grid.zeros[r * grid.zero_stride + groups[c]]);
  const float q = rintf(__fdiv_rn(w.row(r)[c], scale)) + zero;
  codes[r * code_stride + c] = static_cast<uint8_t>(fminf(fmaxf(q, 0.0F), grid.top));
}

__global__ void dequantize_kernel(const uint8_t* codes, int64_t code_stride, int64_t rows, int64_t cols,
                                  const int32_t* groups, GridRows grid, AnyRows w) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * cols) return;
  const int64_t r = i / cols, c = i - r * cols;
  const float scale = grid.scales[r * grid.scale_stride + groups[c]];
  const auto zero = static_cast<float>(grid.zeros[r * grid.zero_stride + groups[c]]);
  w.set(r, c, scale * (static_cast<float>(codes[r * code_stride + c]) - zero));
}

void round_columns(Gpu& gpu, const ops::RoundColumns& op) {
  const Matrix groups = gpu.on_device(op.groups);
  if (op.w.empty()) return;
  round_columns_kernel<<<blocks_for(op.w.size(), kThreads), kThreads, 0, gpu.stream()>>>(
      float_rows(op.w), op.w.rows, op.w.cols, groups.row<int32_t>(0), grid_rows(op.grid),
      static_cast<uint8_t*>(op.codes.data), op.codes.stride);
}

void dequantize(Gpu& gpu, const ops::Dequantize& op) {
  const Matrix groups = gpu.on_device(op.groups);
  if (op.w.empty()) return;
  dequantize_kernel<<<blocks_for(op.w.size(), kThreads), kThreads, 0, gpu.stream()>>>(
      static_cast<const uint8_t*>(op.codes.data), op.codes.stride, op.w.rows, op.w.cols, groups.row<int32_t>(0),
      grid_rows(op.grid), any_rows(op.w));
}

}  // namespace

void add_grid_ops(GpuOps& table) {
  table.add<find_grid>();
  table.add<round_columns>();
  table.add<dequantize>();
}

}  // namespace gptq::cuda
