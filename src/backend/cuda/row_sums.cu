// Sums over rows, and over rows of a product that is never stored.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/multiplier.h"
#include "backend/cuda/rows.cuh"
#include "base/rounding.h"
#include "ops/row_sums.h"

namespace gptq::cuda {
namespace {

// One warp per row and group; limited by memory bandwidth.
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

void group_products(Gpu& gpu, const ops::GroupProducts& op) {
  if (op.products.empty()) return;
  constexpr int64_t kWarps = kThreads / 32;
  const auto blocks = static_cast<unsigned>((op.products.size() + kWarps - 1) / kWarps);
  group_products_kernel<<<blocks, kThreads, 0, gpu.stream()>>>(
      static_cast<const float*>(op.x.data), op.x.stride, static_cast<const float*>(op.y.data), op.y.stride,
      op.group_size, op.products.rows, op.products.cols, static_cast<float*>(op.products.data), op.products.stride);
}

struct RowNorms {
  AnyRows x;
  Rows<float> norms;
  int64_t cols;
  __device__ void operator()(int64_t r) const {
    float sum = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += x.get(r, c) * x.get(r, c);
    sum = over_block(sum, Sum());
    if (threadIdx.x == 0) *norms.row(r) += sum;
  }
};

void add_row_norms(Gpu& gpu, const ops::AddRowNorms& op) {
  launch_rows(op.x.rows, gpu.stream(), RowNorms{any_rows(op.x), rows_of<float>(op.norms), op.x.cols});
}

__global__ void copy_lower_kernel(const float* x, int64_t x_stride, int64_t n, float* y, int64_t y_stride) {
  const int64_t r = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r < n && c < n) y[r * y_stride + c] = c <= r ? x[r * x_stride + c] : 0.0F;
}

// y = x on and below the diagonal, 0 above.   x, y [n, n] f32
void copy_lower(ConstMatrixView x, MatrixView y, cudaStream_t stream) {
  if (y.empty()) return;
  const dim3 blocks(static_cast<unsigned>((y.rows + 31) / 32), static_cast<unsigned>((y.rows + 7) / 8));
  copy_lower_kernel<<<blocks, dim3(32, 8), 0, stream>>>(static_cast<const float*>(x.data), x.stride, y.rows,
                                                        static_cast<float*>(y.data), y.stride);
}

void add_product_norms(Gpu& gpu, const ops::AddProductNorms& op) {
  if (op.w.empty()) return;
  constexpr int64_t kPanel = 1024;
  for (int64_t first = 0; first < op.w.cols; first += kPanel) {
    const int64_t count = std::min(kPanel, op.w.cols - first);
    Matrix diagonal(gpu.memory(), DType::f32, count, rounded_up(count, 4)),
        y(gpu.memory(), DType::f32, op.w.rows, rounded_up(count, 4));
    copy_lower(op.factor.block(first, count, first, count), diagonal.view().col_range(0, count), gpu.stream());
    Product product{.transpose_a = true, .tf32 = true, .m = count, .n = op.w.rows, .ldb = op.w.stride, .ldd = y.cols()};
    const auto multiply = [&](ConstMatrixView f, ConstMatrixView part) {
      product.k = f.cols;
      product.lda = f.stride;
      product.alignment = std::min(alignment_of(f), alignment_of(part));
      gpu.multiplier().multiply(product, f.data, part.data, nullptr, y.view().data);
      product.beta = 1;
    };
    if (first > 0) multiply(op.factor.block(first, count, 0, first), op.w.col_range(0, first));
    multiply(diagonal.view().col_range(0, count), op.w.col_range(first, count));
    add_row_norms(gpu, {.x = y.view().col_range(0, count), .norms = op.norms});
  }
}

}  // namespace

void add_row_sum_ops(GpuOps& table) {
  table.add<group_products>();
  table.add<add_row_norms>();
  table.add<add_product_norms>();
}

}  // namespace gptq::cuda
