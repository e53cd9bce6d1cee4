// Ops on grids and codes.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace gptq::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffU;

struct FloatRows {
  const float* data;
  int64_t stride;
  __device__ const float* row(int64_t r) const { return data + r * stride; }
};
FloatRows float_rows(ConstMatrixView m) { return {static_cast<const float*>(m.data), m.stride}; }

struct GridRows {
  const float* scales;
  const uint8_t* zeros;
  int64_t scale_stride, zero_stride;
  float top;  // the largest code
};
GridRows grid_rows(const Grid& grid) {
  return {static_cast<const float*>(grid.scales.data), static_cast<const uint8_t*>(grid.zeros.data), grid.scales.stride,
          grid.zeros.stride, static_cast<float>((1 << grid.bits) - 1)};
}

// The scale that fp16 holds, as reference() has it.
__device__ float stored_scale(float scale) {
  return copysignf(fminf(fmaxf(fabsf(__half2float(__float2half_rn(scale))), 0x1p-24F), 65504.0F), scale);
}

// ---------------------------------------------------------------------------------------------------- find_grid
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

// --------------------------------------------------------------------------------------------- quantize_columns
// Eight lanes share a row: lane l has columns l, 8 + l, 16 + l, ..., their weights and feedback in registers. Column
// after column, the lane that has it finds code and error, which goes to the other seven by a shuffle, and each adds it
// to the feedback of its later columns. The factor's block lies in shared memory as pieces of four registers' columns,
// the eight lanes' pieces side by side. Limited by the chain from one column to the next: a division, a rounding and a
// shuffle.
constexpr int kLanesPerRow = 8;
constexpr int kColumns = 128;
constexpr int kPerLane = kColumns / kLanesPerRow;
constexpr int kColumnThreads = 128;
constexpr int kRowsPerBlock = kColumnThreads / kLanesPerRow;
constexpr int kRowPieces =
    kColumns / 4 + 1;  // from one row of R to the next: one more, so that its writers' banks differ
constexpr size_t kFactorBytes = sizeof(float4) * kColumns * kRowPieces;

// a / b, given 1 / b: one step of Newton's makes it the nearest float but for the rarest cases.
__device__ float quotient(float a, float b, float inverse) {
  const float q = a * inverse;
  return fmaf(fmaf(-q, b, a), inverse, q);
}

// The nearest integer, ties to even, of |x| < 2^22.
__device__ float nearest(float x) {
  constexpr float kShift = 0x1.8p23F;
  return (x + kShift) - kShift;
}

// Where R_kj = F_jk lies, for column j = 8 r + l: piece r / 4 of row k, lane l, element r % 4.
__device__ int factor_place(int k, int j) {
  const int r = j / kLanesPerRow, l = j % kLanesPerRow;
  return (k * kRowPieces + r / 4 * kLanesPerRow + l) * 4 + r % 4;
}

__global__ void __launch_bounds__(kColumnThreads)
    quantize_columns_kernel(FloatRows w, FloatRows feedback, FloatRows factor, int64_t rows, int n, ColumnGroups groups,
                            GridRows grid, uint8_t* codes, int64_t code_stride, float* errors, int64_t error_stride,
                            float* loss, int64_t loss_stride) {
  extern __shared__ float4 pieces[];
  auto* R = reinterpret_cast<float*>(pieces);
  for (int i = threadIdx.x; i < kColumns * kColumns; i += kColumnThreads) {
    const int j = i / kColumns, k = i % kColumns;  // neighbours read along F's rows
    R[factor_place(k, j)] = j < n && k <= j ? factor.row(j)[k] : 0.0F;
  }
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x % kLanesPerRow);
  const int64_t own_row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kLanesPerRow;
  const bool exists = own_row < rows;
  const int64_t row = exists ? own_row : rows - 1;  // spare lanes repeat the last row, so that shuffles are whole

  float weight[kPerLane], sum[kPerLane], scales[kPerLane], zeros[kPerLane];
#pragma unroll
  for (int r = 0; r < kPerLane; ++r) {
    const int k = r * kLanesPerRow + lane, group = groups.of[k < n ? k : 0];
    weight[r] = k < n ? w.row(row)[k] : 0;
    sum[r] = k < n ? feedback.row(row)[k] : 0;
    scales[r] = grid.scales[row * grid.scale_stride + group];
    zeros[r] = static_cast<float>(grid.zeros[row * grid.zero_stride + group]);
  }

  float total = 0;
#pragma unroll
  for (int r = 0; r < kPerLane; ++r) {
    if (r * kLanesPerRow >= n) break;
    const int own = r * kLanesPerRow + lane;  // this lane's column among the eight
    const bool valid = own < n;
    const float scale = scales[r], inverse_scale = __frcp_rn(scale), zero = zeros[r];
    const float diagonal = valid ? R[factor_place(own, own)] : 1.0F, inverse_diagonal = __frcp_rn(diagonal);
    float own_error = 0, own_code = 0, own_miss = 0;
#pragma unroll 1  // unrolled, the code would not fit the instruction cache
    for (int turn = 0; turn < kLanesPerRow; ++turn) {
      const int k = r * kLanesPerRow + turn;
      const float target = weight[r] + quotient(sum[r], diagonal, inverse_diagonal);
      const float q = nearest(fminf(fmaxf(quotient(target, scale, inverse_scale), -zero), grid.top - zero));
      const float dequantized = scale * q;
      float error = weight[r] - dequantized;
      if (lane == turn) {
        own_error = error;
        own_code = q + zero;
        own_miss = (target - dequantized) * diagonal;
      }
      error = __shfl_sync(kAllLanes, error, turn, kLanesPerRow);
#pragma unroll
      for (int piece = r / 4; piece < kPerLane / 4; ++piece) {
        const float4 f = pieces[k * kRowPieces + piece * kLanesPerRow + lane];
        // Columns that are done are added to as well, and not looked at again.
        sum[piece * 4 + 0] = fmaf(error, f.x, sum[piece * 4 + 0]);
        sum[piece * 4 + 1] = fmaf(error, f.y, sum[piece * 4 + 1]);
        sum[piece * 4 + 2] = fmaf(error, f.z, sum[piece * 4 + 2]);
        sum[piece * 4 + 3] = fmaf(error, f.w, sum[piece * 4 + 3]);
      }
    }
    if (valid && exists) {
      codes[row * code_stride + own] = static_cast<uint8_t>(own_code);
      errors[row * error_stride + own] = own_error;
    }
    if (valid) total = fmaf(own_miss, own_miss, total);
  }
#pragma unroll
  for (int l = kLanesPerRow / 2; l > 0; l /= 2) total += __shfl_xor_sync(kAllLanes, total, l, kLanesPerRow);
  if (lane == 0 && exists) loss[row * loss_stride] += total;
}

// ------------------------------------------------------------------------------------- round_columns, dequantize
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

// --------------------------------------------------------------------------------------------------------- pack
// A block turns 32 rows of one tile of codes, 32 words long, into 32 words of 32 columns, through shared memory so that
// both sides are read and written along rows. Limited by memory bandwidth.
constexpr int kTile = 32;

template <int kBits>
__global__ void pack_kernel(const uint8_t* codes, int64_t code_stride, int64_t rows, int64_t cols, uint32_t* words,
                            int64_t word_stride) {
  constexpr int kTileCodes = kTile * 32 / kBits + (32 % kBits == 0 ? 0 : 2);
  __shared__ uint8_t tile[kTile][kTileCodes + 4];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTile,
                first_word = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t first_code = first_word * 32 / kBits;
  // A tile of 3-bit codes starts and ends inside a code.
  for (int r = threadIdx.y; r < kTile; r += blockDim.y) {
    for (int c = threadIdx.x; c < kTileCodes; c += blockDim.x) {
      const int64_t row = first_row + r, col = first_code + c;
      tile[r][c] = row < rows && col < cols ? codes[row * code_stride + col] : 0;
    }
  }
  __syncthreads();
  const int64_t row = first_row + threadIdx.x;
  for (int i = threadIdx.y; i < kTile; i += blockDim.y) {
    const int64_t word = first_word + i;
    if (row >= rows || word >= cols * kBits / 32) continue;
    const int64_t first_bit = word * 32;
    uint32_t value = 0;
    for (int64_t code = first_bit / kBits; code * kBits < first_bit + 32; ++code) {
      const auto shift = static_cast<int>(code * kBits - first_bit);
      const uint32_t bits = tile[threadIdx.x][code - first_code];
      value |= shift >= 0 ? bits << shift : bits >> -shift;
    }
    words[word * word_stride + row] = value;
  }
}

unsigned blocks_for(int64_t tasks, int64_t each) { return static_cast<unsigned>((tasks + each - 1) / each); }

}  // namespace

void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
               MatrixView scales, MatrixView zeros, cudaStream_t stream) {
  if (scales.empty()) return;
  const GridArguments arguments = {
      .w = float_rows(w),
      .importance = importance.empty() ? nullptr : static_cast<const float*>(importance.data),
      .rows = scales.rows,
      .groups = scales.cols,
      .group_size = group_size,
      .scales = static_cast<float*>(scales.data),
      .zeros = static_cast<uint8_t*>(zeros.data),
      .scale_stride = scales.stride,
      .zero_stride = zeros.stride,
      .top = static_cast<float>((1 << search.bits) - 1),
      .shrink_step = search.shrink_step,
      .norm = search.norm,
      .candidates = search.candidates,
      .symmetric = search.symmetric,
      .signed_scales = search.signed_scales,
      .search_zeros = search.search_zeros};
  const unsigned blocks = blocks_for(scales.size(), kGridWarps);
  const bool in_registers = group_size <= kHeld * 32, square = search.norm == 2;
  const auto kernel = in_registers ? (square ? find_grid_kernel<true, true> : find_grid_kernel<true, false>)
                                   : (square ? find_grid_kernel<false, true> : find_grid_kernel<false, false>);
  kernel<<<blocks, kGridWarps * 32, 0, stream>>>(arguments);
}

void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor, const ColumnGroups& groups,
                      const Grid& grid, MatrixView codes, MatrixView errors, MatrixView loss, cudaStream_t stream) {
  if (w.empty()) return;
  cudaFuncSetAttribute(quantize_columns_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(kFactorBytes));
  quantize_columns_kernel<<<blocks_for(w.rows, kRowsPerBlock), kColumnThreads, kFactorBytes, stream>>>(
      float_rows(w), float_rows(feedback), float_rows(factor), w.rows, static_cast<int>(w.cols), groups,
      grid_rows(grid), static_cast<uint8_t*>(codes.data), codes.stride, static_cast<float*>(errors.data), errors.stride,
      static_cast<float*>(loss.data), loss.stride);
}

void round_columns(ConstMatrixView w, const int32_t* groups, const Grid& grid, MatrixView codes, cudaStream_t stream) {
  if (w.empty()) return;
  round_columns_kernel<<<blocks_for(w.size(), kThreads), kThreads, 0, stream>>>(
      float_rows(w), w.rows, w.cols, groups, grid_rows(grid), static_cast<uint8_t*>(codes.data), codes.stride);
}

void dequantize(ConstMatrixView codes, const int32_t* groups, const Grid& grid, MatrixView w, cudaStream_t stream) {
  if (w.empty()) return;
  dequantize_kernel<<<blocks_for(w.size(), kThreads), kThreads, 0, stream>>>(
      static_cast<const uint8_t*>(codes.data), codes.stride, w.rows, w.cols, groups, grid_rows(grid), any_rows(w));
}

void pack(ConstMatrixView codes, int bits, MatrixView words, cudaStream_t stream) {
  if (words.empty()) return;
  const dim3 blocks(blocks_for(codes.rows, kTile), blocks_for(words.rows, kTile)), threads(kTile, 8);
  const auto kernel = bits == 2   ? pack_kernel<2>
                      : bits == 3 ? pack_kernel<3>
                      : bits == 4 ? pack_kernel<4>
                                  : pack_kernel<8>;
  kernel<<<blocks, threads, 0, stream>>>(static_cast<const uint8_t*>(codes.data), codes.stride, codes.rows, codes.cols,
                                         static_cast<uint32_t*>(words.data), words.stride);
}

}  // namespace gptq::cuda
