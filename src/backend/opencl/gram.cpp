// Hessians and cross products. Rows that are not finite are left out of the product's sums.
#include "ops/gram.h"

#include <algorithm>

#include "backend/opencl/products.h"

namespace gptq::opencl {
namespace {

// For each row 1 where x, and y where there is one, hold neither NaN nor infinity, else 0.
Matrix find_finite(Xpu& xpu, ConstMatrixView x, ConstMatrixView y) {
  constexpr int64_t kThreads = 64;
  Matrix kept(xpu.memory(), DType::i32, 1, x.rows);
  xpu.launch({"gram", "find_finite"}, Grid{{x.rows, 1, 1}, {kThreads, 1, 1}}, x, y, kept, static_cast<int32_t>(x.cols));
  return kept;
}

void add_gram(Xpu& xpu, const ops::AddGram& op) {
  if (op.x.empty()) return;
  const Matrix kept = find_finite(xpu, op.x, {});
  xpu.launch({"gram", "count_dropped"}, line(1), kept, op.dropped, static_cast<int32_t>(op.x.rows));
  multiply(xpu, {.a = op.x,
                 .a_by_columns = true,
                 .b = op.x,
                 .b_by_columns = true,
                 .c = op.h,
                 .kept = kept,
                 .adds = true,
                 .lower = true});
}

// Tokens whose differences are in memory at once.
constexpr int64_t kTokens = 512;

void add_cross_gram(Xpu& xpu, const ops::AddCrossGram& op) {
  if (op.x.empty()) return;
  Matrix differences(xpu.memory(), op.x.dtype, std::min(kTokens, op.x.rows), op.x.cols);
  for (int64_t first = 0; first < op.x.rows; first += kTokens) {
    const int64_t tokens = std::min(kTokens, op.x.rows - first);
    const ConstMatrixView x = op.x.row_range(first, tokens), original = op.original.row_range(first, tokens);
    const MatrixView difference = differences.view().row_range(0, tokens);
    const Matrix kept = find_finite(xpu, x, original);
    xpu.launch({"gram", "subtract"}, elements(tokens, x.cols), x, original, difference, tokens, x.cols);
    multiply(
        xpu,
        {.a = x, .a_by_columns = true, .b = difference, .b_by_columns = true, .c = op.c, .kept = kept, .adds = true});
  }
}

}  // namespace

void add_gram_ops(XpuOps& table) {
  table.add<add_gram>();
  table.add<add_cross_gram>();
}

}  // namespace gptq::opencl
