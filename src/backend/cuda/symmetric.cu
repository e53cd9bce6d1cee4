// Symmetric matrices, by tiles. Limited by memory bandwidth.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "ops/symmetric.h"

namespace gptq::cuda {
namespace {

constexpr int kTile = 32;

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

void mirror(Gpu& gpu, const ops::Mirror& op) {
  if (op.h.rows < 2) return;
  const auto count = static_cast<unsigned>((op.h.rows + kTile - 1) / kTile);
  mirror_kernel<<<dim3(count, count), dim3(kTile, 8), 0, gpu.stream()>>>(static_cast<float*>(op.h.data), op.h.stride,
                                                                         op.h.rows);
}

void permute_symmetric(Gpu& gpu, const ops::PermuteSymmetric& op) {
  const Matrix order = gpu.on_device(op.order);
  if (op.y.empty()) return;
  const int64_t n = op.y.rows;
  const dim3 blocks(static_cast<unsigned>((n + kTile - 1) / kTile), static_cast<unsigned>((n + 7) / 8));
  permute_symmetric_kernel<<<blocks, dim3(kTile, 8), 0, gpu.stream()>>>(static_cast<const float*>(op.h.data),
                                                                        op.h.stride, order.row<int32_t>(0), n, op.damp,
                                                                        static_cast<float*>(op.y.data), op.y.stride);
}

}  // namespace

void add_symmetric_ops(GpuOps& table) {
  table.add<mirror>();
  table.add<permute_symmetric>();
}

}  // namespace gptq::cuda
