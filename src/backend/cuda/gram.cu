// Hessians and cross products: rows that are not finite become zeros in a copy, by kernels that memory bandwidth
// limits, and cuBLAS multiplies the copy.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/gpu.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/multiplier.h"
#include "base/rounding.h"
#include "ops/gram.h"

namespace gptq::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__device__ bool is_finite(T value) {
  return isfinite(widened(value));
}

// One block per row; the row is read twice, the second time from cache.
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

// One block per row, as above, for two inputs.
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

// y = x with rows that hold NaN or infinity replaced by zeros, in y's dtype; dropped[0, 0] += their number.
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

// y = x and difference = original - x, with rows that hold NaN or infinity in either replaced by zeros. All of x's
// dtype.
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

// Computes the lower triangle as squares: the matrix is halved while the pieces keep the device busy. At each level the
// squares below the diagonal are one batch, and finally those on the diagonal, whose upper halves are wasted. Tokens
// are summed in chunks, each added to h once: long sums on tensor cores lose bits.
void add_gram_blocks(Gpu& gpu, ConstMatrixView x, MatrixView h) {
  constexpr int64_t kTokens = 8192, kLeast = 1024, kGranularity = 16;
  const int64_t n = h.rows;
  int64_t levels = 0;
  while ((n >> (levels + 1)) >= kLeast && n % (kGranularity << (levels + 1)) == 0) ++levels;
  for (int64_t first = 0; first < x.rows; first += kTokens) {
    const ConstMatrixView chunk = x.row_range(first, std::min(kTokens, x.rows - first));
    const auto squares = [&](int64_t size, int64_t step, int64_t row, int64_t count) {
      const Product product{.input = x.dtype,
                            .output = DType::f32,
                            .transpose_b = true,
                            .m = size,
                            .n = size,
                            .k = chunk.rows,
                            .lda = x.stride,
                            .ldb = x.stride,
                            .ldd = h.stride,
                            .batch = count,
                            .step_a = step,
                            .step_b = step,
                            .step_d = step * (h.stride + 1),
                            .beta = 1,
                            .alignment = alignment_of(h)};
      gpu.multiplier().multiply(product, chunk.data, chunk.col_range(row, n - row).data, nullptr,
                                h.row_range(row, n - row).data);
    };
    for (int64_t level = 0; level < levels; ++level) {
      const int64_t size = n >> (level + 1);
      squares(size, 2 * size, size, int64_t{1} << level);
    }
    const int64_t size = n >> levels;
    squares(size, size, 0, int64_t{1} << levels);
  }
}

// Products of 16-bit inputs are exact in f32; f32 inputs are multiplied in f32.
void add_gram(Gpu& gpu, const ops::AddGram& op) {
  if (op.h.empty() || op.x.rows == 0) return;
  Matrix finite(gpu.memory(), op.x.dtype, op.x.rows, rounded_up(op.x.cols, 8));
  const MatrixView rows = finite.view().col_range(0, op.x.cols);
  keep_finite_rows(op.x, rows, op.dropped, gpu.stream());
  if (alignment_of(op.h) == 16) {
    add_gram_blocks(gpu, rows, op.h);
  } else {
    Matrix aligned(gpu.memory(), DType::f32, op.h.rows, rounded_up(op.h.cols, 4));
    const MatrixView sum = aligned.view().col_range(0, op.h.cols);
    convert(op.h, sum, gpu.stream());
    add_gram_blocks(gpu, rows, sum);
    convert(sum, op.h, gpu.stream());
  }
}

// Copies rows that are finite in both, then multiplies, chunk by chunk: longer sums lose bits on tensor cores.
void add_cross_gram(Gpu& gpu, const ops::AddCrossGram& op) {
  if (op.c.empty() || op.x.rows == 0) return;
  if (alignment_of(op.c) < 16) {
    Matrix aligned(gpu.memory(), DType::f32, op.c.rows, rounded_up(op.c.cols, 4));
    const MatrixView sum = aligned.view().col_range(0, op.c.cols);
    convert(op.c, sum, gpu.stream());
    add_cross_gram(gpu, {.x = op.x, .original = op.original, .c = sum});
    return convert(sum, op.c, gpu.stream());
  }
  constexpr int64_t kTokens = 8192;
  const int64_t n = op.x.cols;
  Matrix values(gpu.memory(), op.x.dtype, std::min(op.x.rows, kTokens), rounded_up(n, 8)),
      differences(gpu.memory(), op.x.dtype, values.rows(), values.cols());
  for (int64_t first = 0; first < op.x.rows; first += kTokens) {
    const int64_t tokens = std::min(kTokens, op.x.rows - first);
    const MatrixView mine = values.view().block(0, tokens, 0, n),
                     difference = differences.view().block(0, tokens, 0, n);
    keep_finite_differences(op.x.row_range(first, tokens), op.original.row_range(first, tokens), mine, difference,
                            gpu.stream());
    // Row-major c += mine' difference is, column-major, c' += difference' mine.
    const Product product{.input = op.x.dtype,
                          .output = DType::f32,
                          .transpose_b = true,
                          .m = n,
                          .n = n,
                          .k = tokens,
                          .lda = difference.stride,
                          .ldb = mine.stride,
                          .ldd = op.c.stride,
                          .beta = 1};
    gpu.multiplier().multiply(product, difference.data, mine.data, nullptr, op.c.data);
  }
}

}  // namespace

void add_gram_ops(GpuOps& table) {
  table.add<add_gram>();
  table.add<add_cross_gram>();
}

}  // namespace gptq::cuda
