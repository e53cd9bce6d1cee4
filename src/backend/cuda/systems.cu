// What surrounds cuSOLVER's batched factorizations in f64.
#include <cstdint>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace gptq::cuda {
namespace {

constexpr int kThreads = 256;

// One block a system. Its first warp sums the diagonal, in the order of the lanes.
__global__ void widen_systems_kernel(const float* a, int64_t a_stride, const float* x, int64_t x_stride, int64_t n,
                                     float ridge, double* matrices, double* sides, double** addresses) {
  __shared__ double shift;
  const int64_t system = blockIdx.x;
  const float* from = a + system * a_stride;
  double* matrix = matrices + system * n * n;
  double* side = sides + system * n;
  if (threadIdx.x < 32) {
    double trace = 0;
    for (int64_t i = threadIdx.x; i < n; i += 32) trace += from[i * (n + 1)];
    for (int apart = 16; apart > 0; apart /= 2) trace += __shfl_xor_sync(0xffffffffU, trace, apart);
    if (threadIdx.x == 0) {
      shift = ridge * trace / static_cast<double>(n);
      addresses[system] = matrix;
      addresses[gridDim.x + system] = side;
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < n * n; i += kThreads) {
    const int64_t r = i / n, c = i - r * n;
    matrix[i] = c > r ? 0.0 : from[i] + (c == r ? shift : 0.0);
  }
  for (int64_t i = threadIdx.x; i < n; i += kThreads) side[i] = x[system * x_stride + i];
}

// One block a system.
__global__ void narrow_solutions_kernel(const double* sides, const int32_t* info, int64_t n, float* x,
                                        int64_t x_stride) {
  const double* side = sides + blockIdx.x * n;
  bool good = info[blockIdx.x] == 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) good = good && isfinite(side[i]);
  good = __syncthreads_and(good) != 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads)
    x[blockIdx.x * x_stride + i] = good ? static_cast<float>(side[i]) : 0;
}

// One warp a row and group; limited by memory bandwidth.
__global__ void group_products_kernel(const float* x, int64_t x_stride, const float* y, int64_t y_stride,
                                      int64_t group_size, int64_t rows, int64_t groups, float* products,
                                      int64_t product_stride) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (task >= rows * groups) return;
  const int64_t row = task / groups, group = task - row * groups;
  const float *a = x + row * x_stride + group * group_size, *b = y + row * y_stride + group * group_size;
  float sum = 0;
  for (int64_t k = threadIdx.x % 32; k < group_size; k += 32) sum = fmaf(a[k], b[k], sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) products[row * product_stride + group] = sum;
}

}  // namespace

void widen_systems(ConstMatrixView a, ConstMatrixView x, float ridge, double* matrices, double* sides,
                   double** addresses, cudaStream_t stream) {
  if (x.empty()) return;
  widen_systems_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
      static_cast<const float*>(a.data), a.stride, static_cast<const float*>(x.data), x.stride, x.cols, ridge, matrices,
      sides, addresses);
}

void narrow_solutions(const double* sides, const int32_t* info, MatrixView x, cudaStream_t stream) {
  if (x.empty()) return;
  narrow_solutions_kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
      sides, info, x.cols, static_cast<float*>(x.data), x.stride);
}

void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products,
                    cudaStream_t stream) {
  if (products.empty()) return;
  constexpr int64_t kWarps = kThreads / 32;
  const auto blocks = static_cast<unsigned>((products.size() + kWarps - 1) / kWarps);
  group_products_kernel<<<blocks, kThreads, 0, stream>>>(
      static_cast<const float*>(x.data), x.stride, static_cast<const float*>(y.data), y.stride, group_size,
      products.rows, products.cols, static_cast<float*>(products.data), products.stride);
}

}  // namespace gptq::cuda
