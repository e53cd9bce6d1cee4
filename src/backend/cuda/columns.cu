// GPTQ's column loop.
#include <algorithm>
#include <cassert>
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/grid.cuh"
#include "ops/columns.h"

namespace gptq::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffU;

// The grid column of each of at most kMostColumns columns, small enough for a kernel's parameters.
struct ColumnGroups {
  int32_t of[kMostColumns];
};

// Eight lanes share a row: lane l has columns l, 8 + l, 16 + l, ..., with weights and feedback in registers. Column
// after column, its lane computes code and error and sends the error to the other seven by a shuffle; each adds it to
// the feedback of its later columns. The factor's block is in shared memory as pieces of four registers' columns, the
// eight lanes' pieces next to each other. Limited by the latency from one column to the next: a division, a rounding, a
// shuffle.
constexpr int kLanesPerRow = 8;
constexpr int kColumns = 128;
constexpr int kPerLane = kColumns / kLanesPerRow;
constexpr int kColumnThreads = 128;
constexpr int kRowsPerBlock = kColumnThreads / kLanesPerRow;
constexpr int kRowPieces =
    kColumns / 4 + 1;  // from one row of R to the next: one more, so that its writers' banks differ
constexpr size_t kFactorBytes = sizeof(float4) * kColumns * kRowPieces;

// a / b, given 1 / b: one Newton step makes it the nearest float in all but the rarest cases.
__device__ float quotient(float a, float b, float inverse) {
  const float q = a * inverse;
  return fmaf(fmaf(-q, b, a), inverse, q);
}

// The nearest integer, ties to even, of |x| < 2^22.
__device__ float nearest(float x) {
  constexpr float kShift = 0x1.8p23F;
  return (x + kShift) - kShift;
}

// Place of R_kj = F_jk for column j = 8 r + l: piece r / 4 of row k, lane l, element r % 4.
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
        // Finished columns are added to as well, and not read again.
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

void quantize_columns(Gpu& gpu, const ops::QuantizeColumns& op) {
  if (op.w.empty()) return;
  ColumnGroups columns = {};
  assert(op.groups.size() <= std::size(columns.of));
  std::copy(op.groups.begin(), op.groups.end(), columns.of);
  cudaFuncSetAttribute(quantize_columns_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(kFactorBytes));
  quantize_columns_kernel<<<blocks_for(op.w.rows, kRowsPerBlock), kColumnThreads, kFactorBytes, gpu.stream()>>>(
      float_rows(op.w), float_rows(op.feedback), float_rows(op.factor), op.w.rows, static_cast<int>(op.w.cols), columns,
      grid_rows(op.grid), static_cast<uint8_t*>(op.codes.data), op.codes.stride, static_cast<float*>(op.errors.data),
      op.errors.stride, static_cast<float*>(op.loss.data), op.loss.stride);
}

}  // namespace

void add_column_ops(GpuOps& table) { table.add<quantize_columns>(); }

}  // namespace gptq::cuda
