// Kernels that work row by row or element by element. All of them are limited by memory bandwidth: where dtypes are the
// same and alignment allows, a thread handles 8 neighbouring elements in one access, otherwise one element of any type.
// A row that needs a sum is the work of one block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "backend/cuda/device_math.cuh"

namespace gptq::cuda {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 20;
constexpr int kWide = 8;

// A strided matrix of elements T.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* row(int64_t r) const { return data + r * stride; }
};
template <typename T>
Rows<T> rows_of(MatrixView m) {
  return {static_cast<T*>(m.data), m.stride};
}
template <typename T>
Rows<const T> rows_of(ConstMatrixView m) {
  return {static_cast<const T*>(m.data), m.stride};
}

// Neighbouring elements, moved in one or two accesses of 16 bytes.
template <typename T>
struct alignas(16) Pack {
  T values[kWide];
};
template <typename T>
__device__ Pack<T> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T>*>(from);
}
template <typename T>
__device__ void store_pack(T* to, const Pack<T>& pack) {
  *reinterpret_cast<Pack<T>*>(to) = pack;
}

// Whether all have the same dtype and rows of whole packs.
inline bool in_packs(std::initializer_list<ConstMatrixView> views) {
  return std::all_of(views.begin(), views.end(), [&](const ConstMatrixView& m) {
    return m.dtype == views.begin()->dtype && reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.stride % kWide == 0 &&
           m.cols % kWide == 0;
  });
}

// Elementwise: thread i of the grid handles place i, i + threads, ... of the matrix [rows, cols / each].
template <typename Body>
__global__ void for_places(int64_t rows, int64_t places, int each, Body body) {
  const int64_t total = rows * places, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int64_t r = i / places;
    body(r, (i - r * places) * each);
  }
}
template <typename Body>
void launch_places(int64_t rows, int64_t cols, int each, cudaStream_t stream, Body body) {
  const int64_t places = cols / each;
  if (rows == 0 || places == 0) return;
  const int64_t blocks = std::min<int64_t>(kMostBlocks, (rows * places + kThreads - 1) / kThreads);
  for_places<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(rows, places, each, body);
}

// A row is the work of one block; the body is called by all its threads.
template <typename Body>
__global__ void for_rows(Body body) {
  body(static_cast<int64_t>(blockIdx.x));
}
template <typename Body>
void launch_rows(int64_t rows, cudaStream_t stream, Body body) {
  if (rows > 0) for_rows<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(body);
}

// The sequence of row r, the last one that starts at or before r.
__device__ inline int64_t sequence_of(int64_t r, const int64_t* offsets, int64_t sequences) {
  int64_t low = 0, high = sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (offsets[middle] <= r ? low : high) = middle;
  }
  return low;
}
__device__ inline int64_t position_of(int64_t r, const int64_t* offsets, int64_t sequences) {
  return r - offsets[sequence_of(r, offsets, sequences)];
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Maximum {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// The result of `combine` over all threads of the block, in each of them; the order is fixed.
template <typename Combine>
__device__ float over_block(float value, Combine combine) {
  __shared__ float of_warp[kThreads / 32];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) value = combine(value, __shfl_xor_sync(0xffffffffU, value, lane));
  __syncthreads();  // all threads have read the results of an earlier call
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) value = combine(value, of_warp[warp]);
  return value;
}

}  // namespace gptq::cuda
