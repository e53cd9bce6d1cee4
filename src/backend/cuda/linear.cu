// Products with weights, by cuBLASLt. Operands that it does not take are copied to f32 first.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/multiplier.h"
#include "base/rounding.h"
#include "ops/linear.h"

namespace gptq::cuda {
namespace {

// y = x w' in row-major terms is y' = w x' in cuBLAS's column-major ones.
void linear(Gpu& gpu, const ops::Linear& op) {
  const ConstMatrixView x = op.x, w = op.w, bias = op.bias;
  const MatrixView y = op.y;
  if (y.empty()) return;
  if (x.cols == 0) {
    clear(y, gpu.stream());
    if (!bias.empty()) add_bias(bias, y, gpu.stream());
    return;
  }
  const int64_t alignment = std::min({alignment_of(x), alignment_of(w), alignment_of(y)});
  const bool one_type = x.dtype == w.dtype && (y.dtype == x.dtype || y.dtype == DType::f32);
  const bool bias_fits = bias.empty() || (bias.dtype == y.dtype && alignment_of(bias) == 16);
  if (!one_type || !bias_fits || (alignment < 16 && x.dtype != DType::f32)) {
    const Matrix wide_x = aligned_copy(gpu, x, DType::f32), wide_w = aligned_copy(gpu, w, DType::f32);
    Matrix wide_y(gpu.memory(), DType::f32, y.rows, rounded_up(y.cols, 4));
    const MatrixView sums = wide_y.view().col_range(0, y.cols);
    linear(gpu, {.x = wide_x.view().col_range(0, x.cols), .w = wide_w.view().col_range(0, w.cols), .y = sums});
    if (!bias.empty()) add_bias(bias, sums, gpu.stream());
    convert(sums, y, gpu.stream());
    return;
  }
  // The column loop's products are narrow and long, and their rows are those of a weight, whose number never varies:
  // the split of the inner dimension may depend on it.
  constexpr int64_t kNarrow = 128, kLong = 512;
  const bool of_column_loop = x.dtype == DType::f32 && w.rows <= kNarrow && x.cols >= kLong;
  const Product product{.input = x.dtype,
                        .output = y.dtype,
                        .transpose_a = true,
                        .m = y.cols,
                        .n = y.rows,
                        .k = x.cols,
                        .lda = w.stride,
                        .ldb = x.stride,
                        .ldd = y.stride,
                        .alignment = alignment,
                        .rows_are_free = !of_column_loop};
  gpu.multiplier().multiply(product, w.data, x.data, bias.empty() ? nullptr : bias.data, y.data);
}

}  // namespace

void add_linear_ops(GpuOps& table) { table.add<linear>(); }

}  // namespace gptq::cuda
