// What surrounds the products and factorizations of Hessians. All of it is limited by memory bandwidth.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace gptq::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32;

template <typename T>
__device__ bool is_finite(T value) {
  return isfinite(widened(value));
}

// One block a row; the row is read twice, the second time from cache.
template <typename From, typename To>
__global__ void keep_finite_rows_kernel(const From* x, int64_t x_stride, int64_t cols, To* y, int64_t y_stride,
                                        int32_t* dropped) {
  const From* from = x + blockIdx.x * x_stride;
  To* to = y + blockIdx.x * y_stride;
  bool finite = true;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) finite = finite && is_finite(from[c]);
  finite = __syncthreads_and(finite) != 0;
  if (!finite && threadIdx.x == 0) atomicAdd(dropped, 1);  // an integer: any order gives the same
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) store(to + c, finite ? widened(from[c]) : 0.0F);
}

// The same for rows of 16-byte pieces of a 2-byte type, which stay in registers between check and store.
template <typename T>
__global__ void keep_finite_rows_wide(const T* x, int64_t x_stride, int64_t cols, T* y, int64_t y_stride,
                                      int32_t* dropped) {
  constexpr int kHeld = 8, kEach = 8;  // pieces a thread holds: rows of up to 16384 elements
  const T* from = x + blockIdx.x * x_stride;
  T* to = y + blockIdx.x * y_stride;
  uint4 pieces[kHeld];
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t c = (static_cast<int64_t>(i) * kThreads + threadIdx.x) * kEach;
    if (c >= cols) break;
    pieces[i] = *reinterpret_cast<const uint4*>(from + c);
    const T* values = reinterpret_cast<const T*>(&pieces[i]);
#pragma unroll
    for (int k = 0; k < kEach; ++k) finite = finite && is_finite(values[k]);
  }
  finite = __syncthreads_and(finite) != 0;
  if (!finite && threadIdx.x == 0) atomicAdd(dropped, 1);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t c = (static_cast<int64_t>(i) * kThreads + threadIdx.x) * kEach;
    if (c >= cols) break;
    *reinterpret_cast<uint4*>(to + c) = finite ? pieces[i] : uint4{0, 0, 0, 0};
  }
}

template <typename T>
bool keep_finite_rows_in_pieces(ConstMatrixView x, MatrixView y, int32_t* dropped, cudaStream_t stream) {
  const auto aligned = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
  };
  if (x.dtype != y.dtype || x.cols % 8 != 0 || x.cols > 16384 || !aligned(x.data, x.stride) ||
      !aligned(y.data, y.stride))
    return false;
  keep_finite_rows_wide<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
      static_cast<const T*>(x.data), x.stride, x.cols, static_cast<T*>(y.data), y.stride, dropped);
  return true;
}

// One block a row, as above, of two inputs.
template <typename T>
__global__ void keep_finite_differences_kernel(const T* x, int64_t x_stride, const T* original, int64_t original_stride,
                                               int64_t cols, T* y, int64_t y_stride, T* difference,
                                               int64_t difference_stride) {
  const T *from = x + blockIdx.x * x_stride, *other = original + blockIdx.x * original_stride;
  T *to = y + blockIdx.x * y_stride, *apart = difference + blockIdx.x * difference_stride;
  bool finite = true;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) finite = finite && is_finite(from[c]) && is_finite(other[c]);
  finite = __syncthreads_and(finite) != 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    const float value = finite ? widened(from[c]) : 0.0F;
    store(to + c, value);
    store(apart + c, finite ? widened(other[c]) - value : 0.0F);
  }
}

// A block has a tile of 32 x 32 elements on or below the diagonal, and writes its mirror image through shared memory.
__global__ void mirror_kernel(float* h, int64_t stride, int64_t n) {
  __shared__ float tile[kTile][kTile + 1];
  if (blockIdx.x > blockIdx.y) return;
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * kTile, j0 = static_cast<int64_t>(blockIdx.x) * kTile;
  for (int r = threadIdx.y; r < kTile; r += blockDim.y) {
    const int64_t i = i0 + r, j = j0 + threadIdx.x;
    tile[r][threadIdx.x] = i < n && j <= i ? h[i * stride + j] : 0.0F;
  }
  __syncthreads();
  for (int r = threadIdx.y; r < kTile; r += blockDim.y) {
    const int64_t i = i0 + threadIdx.x, j = j0 + r;  // h[j, i] = h[i, j]
    if (i < n && j < i) h[j * stride + i] = tile[threadIdx.x][r];
  }
}

// Thread (i, j) of the lower triangle's tiles; reads follow the order, so they are scattered inside cached rows.
__global__ void permute_symmetric_kernel(const float* h, int64_t h_stride, const int32_t* order, int64_t n, float damp,
                                         float* y, int64_t y_stride) {
  const int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n || j >= n) return;
  float value = 0;
  if (j <= i) {
    const int64_t a = order[i], b = order[j];
    value = b <= a ? h[a * h_stride + b] : h[b * h_stride + a];
    if (i == j) value += damp;
  }
  y[i * y_stride + j] = value;
}

// Each thread swaps one pair of elements that are each other's mirror images.
__global__ void reverse_kernel(float* h, int64_t stride, int64_t n) {
  const int64_t half = (n * n) / 2, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < half; i += step) {
    const int64_t r = i / n, c = i - r * n;
    float &a = h[r * stride + c], &b = h[(n - 1 - r) * stride + n - 1 - c];
    const float kept = a;
    a = b;
    b = kept;
  }
}

__global__ void finish_factor_kernel(float* h, int64_t stride, int64_t n, int32_t* ok) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n * n; i += step) {
    const int64_t r = i / n, c = i - r * n;
    if (c > r) h[r * stride + c] = 0;
    // Written by one value only, so that the order does not matter.
    if (c == r && !(h[r * stride + c] > 0 && h[r * stride + c] < INFINITY)) *ok = 0;
  }
}

__global__ void set_kernel(int32_t* place, int32_t value) { *place = value; }

__global__ void copy_lower_kernel(const float* x, int64_t x_stride, int64_t n, float* y, int64_t y_stride) {
  const int64_t r = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r < n && c < n) y[r * y_stride + c] = c <= r ? x[r * x_stride + c] : 0.0F;
}

dim3 tiles(int64_t n) { return {static_cast<unsigned>((n + kTile - 1) / kTile), static_cast<unsigned>((n + 7) / 8)}; }

unsigned blocks_for(int64_t elements) {
  return static_cast<unsigned>(std::clamp<int64_t>((elements + kThreads - 1) / kThreads, 1, 1 << 16));
}

}  // namespace

void keep_finite_rows(ConstMatrixView x, MatrixView y, MatrixView dropped, cudaStream_t stream) {
  if (x.empty()) return;
  auto* count = static_cast<int32_t*>(dropped.data);
  if (x.dtype == DType::bf16 && keep_finite_rows_in_pieces<__nv_bfloat16>(x, y, count, stream)) return;
  if (x.dtype == DType::f16 && keep_finite_rows_in_pieces<__half>(x, y, count, stream)) return;
  with_element(x.dtype, [&](auto from_element) {
    with_element(y.dtype, [&](auto to_element) {
      using From = decltype(from_element);
      using To = decltype(to_element);
      keep_finite_rows_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
          static_cast<const From*>(x.data), x.stride, x.cols, static_cast<To*>(y.data), y.stride, count);
    });
  });
}

void keep_finite_differences(ConstMatrixView x, ConstMatrixView original, MatrixView y, MatrixView difference,
                             cudaStream_t stream) {
  if (x.empty()) return;
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    keep_finite_differences_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
        static_cast<const T*>(x.data), x.stride, static_cast<const T*>(original.data), original.stride, x.cols,
        static_cast<T*>(y.data), y.stride, static_cast<T*>(difference.data), difference.stride);
  });
}

void mirror(MatrixView h, cudaStream_t stream) {
  if (h.rows < 2) return;
  const auto count = static_cast<unsigned>((h.rows + kTile - 1) / kTile);
  mirror_kernel<<<dim3(count, count), dim3(kTile, 8), 0, stream>>>(static_cast<float*>(h.data), h.stride, h.rows);
}

void permute_symmetric(ConstMatrixView h, const int32_t* order, float damp, MatrixView y, cudaStream_t stream) {
  if (y.empty()) return;
  permute_symmetric_kernel<<<tiles(y.rows), dim3(kTile, 8), 0, stream>>>(
      static_cast<const float*>(h.data), h.stride, order, y.rows, damp, static_cast<float*>(y.data), y.stride);
}

void reverse(MatrixView h, cudaStream_t stream) {
  if (h.rows < 1) return;
  reverse_kernel<<<blocks_for(h.rows * h.rows / 2), kThreads, 0, stream>>>(static_cast<float*>(h.data), h.stride,
                                                                           h.rows);
}

void finish_factor(MatrixView h, int32_t* ok, cudaStream_t stream) {
  set_kernel<<<1, 1, 0, stream>>>(ok, 1);
  if (h.empty()) return;
  finish_factor_kernel<<<blocks_for(h.size()), kThreads, 0, stream>>>(static_cast<float*>(h.data), h.stride, h.rows,
                                                                      ok);
}

void copy_lower(ConstMatrixView x, MatrixView y, cudaStream_t stream) {
  if (y.empty()) return;
  copy_lower_kernel<<<tiles(y.rows), dim3(kTile, 8), 0, stream>>>(static_cast<const float*>(x.data), x.stride, y.rows,
                                                                  static_cast<float*>(y.data), y.stride);
}

}  // namespace gptq::cuda
