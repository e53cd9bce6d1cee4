// Sums over rows, and over rows of a product that is stored a panel at a time.
#include "ops/row_sums.h"

#include <algorithm>

#include "backend/opencl/products.h"

namespace gptq::opencl {
namespace {

constexpr int64_t kThreads = 64;

void group_products(Xpu& xpu, const ops::GroupProducts& op) {
  xpu.launch({"row_sums", "group_products"}, Grid{{op.products.cols, op.products.rows, 1}, {kThreads, 1, 1}}, op.x,
             op.y, op.products, static_cast<int32_t>(op.group_size));
}

void add_row_norms(Xpu& xpu, const ops::AddRowNorms& op) {
  xpu.launch({"row_sums", "add_row_norms"}, Grid{{op.x.rows, 1, 1}, {kThreads, 1, 1}}, op.x, op.norms,
             static_cast<int32_t>(op.x.cols));
}

// Columns of the product that are in memory at once.
constexpr int64_t kPanel = 256;

void add_product_norms(Xpu& xpu, const ops::AddProductNorms& op) {
  if (op.w.empty()) return;
  const int64_t n = op.w.cols;
  Matrix panel(xpu.memory(), DType::f32, op.w.rows, std::min(kPanel, n));
  for (int64_t first = 0; first < n; first += kPanel) {
    const int64_t count = std::min(kPanel, n - first);
    const MatrixView y = panel.view().col_range(0, count);
    if (first > 0) multiply(xpu, {.a = op.w.col_range(0, first), .b = op.factor.block(first, count, 0, first), .c = y});
    multiply(xpu, {.a = op.w.col_range(first, count),
                   .b = op.factor.block(first, count, first, count),
                   .c = y,
                   .adds = first > 0,
                   .b_lower = true});
    add_row_norms(xpu, {.x = y, .norms = op.norms});
  }
}

}  // namespace

void add_row_sum_ops(XpuOps& table) {
  table.add<group_products>();
  table.add<add_row_norms>();
  table.add<add_product_norms>();
}

}  // namespace gptq::opencl
