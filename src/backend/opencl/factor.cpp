// Factorizations and solutions, in blocks: a kernel for what is on the diagonal, the matrix product for the rest.
#include "ops/factor.h"

#include <algorithm>
#include <vector>

#include "backend/opencl/products.h"

namespace gptq::opencl {
namespace {

constexpr int64_t kBlock = 64;

// x's vectors, which are rows or columns, become the y with y F = x or y F' = x, for F of at most kBlock rows.
void solve_block(Xpu& xpu, ConstMatrixView F, MatrixView x, bool transposed, bool by_columns) {
  const int64_t count = by_columns ? x.cols : x.rows;
  xpu.launch({"factor", "solve_block"}, Grid{{pieces_of(count, kBlock), 1, 1}, {kBlock, 1, 1}}, F, x,
             static_cast<int32_t>(F.rows), count, static_cast<int32_t>(transposed), static_cast<int32_t>(by_columns));
}

// Blocks of rows from the last to the first. With h = F' F: what is left of a block of rows is F_kk' F_k, which gives
// F_k, and F_k' F_k leaves the rows above.
bool factor(Xpu& xpu, const ops::Factor& op) {
  const int64_t n = op.h.rows, blocks = pieces_of(n, kBlock);
  if (n == 0) return true;
  Matrix good(xpu.memory(), DType::i32, 1, blocks);
  for (int64_t block = blocks - 1; block >= 0; --block) {
    const int64_t first = block * kBlock, count = std::min(kBlock, n - first);
    const MatrixView diagonal = op.h.block(first, count, first, count);
    xpu.launch({"factor", "factor_block"}, Grid{{1, 1, 1}, {kBlock, 1, 1}}, diagonal, good.view().col_range(block, 1),
               static_cast<int32_t>(count));
    if (first == 0) break;
    const MatrixView rows = op.h.block(first, count, 0, first);
    solve_block(xpu, diagonal, rows, false, true);  // F_kk' F_k = rows: columns y of F_k have y' F_kk = those of rows
    multiply(xpu, {.a = rows,
                   .a_by_columns = true,
                   .b = rows,
                   .b_by_columns = true,
                   .c = op.h.block(0, first, 0, first),
                   .alpha = -1,
                   .adds = true,
                   .lower = true});
  }
  std::vector<int32_t> answers(static_cast<size_t>(blocks));
  xpu.fetch(good, answers.data());
  return std::count(answers.begin(), answers.end(), 0) == 0;
}

// Blocks of columns: from the last one for y F = x, from the first for y F' = x.
void solve_triangle(Xpu& xpu, const ops::SolveTriangle& op) {
  if (op.x.empty()) return;
  const int64_t n = op.x.cols, blocks = pieces_of(n, kBlock);
  for (int64_t step = 0; step < blocks; ++step) {
    const int64_t first = (op.transposed ? step : blocks - 1 - step) * kBlock, count = std::min(kBlock, n - first),
                  end = first + count;
    const MatrixView y = op.x.col_range(first, count);
    solve_block(xpu, op.factor.block(first, count, first, count), y, op.transposed, false);
    if (op.transposed) {
      multiply(xpu, {.a = y,
                     .b = op.factor.block(end, n - end, first, count),
                     .c = op.x.col_range(end, n - end),
                     .alpha = -1,
                     .adds = true});
    } else {
      multiply(xpu, {.a = y,
                     .b = op.factor.block(first, count, 0, first),
                     .b_by_columns = true,
                     .c = op.x.col_range(0, first),
                     .alpha = -1,
                     .adds = true});
    }
  }
}

// Systems that are solved at once, so that their scratch stays small.
constexpr int64_t kScratch = int64_t{16} << 20;
int64_t systems_at_once(int64_t rows, int64_t n) {
  return std::clamp<int64_t>(kScratch / (8 * (n * n + n)), 1, std::max<int64_t>(rows, 1));
}

void solve_systems(Xpu& xpu, const ops::SolveSystems& op) {
  if (op.x.empty()) return;
  const int64_t n = op.x.cols, most = systems_at_once(op.x.rows, n);
  Matrix scratch(xpu.memory(), DType::i32, most, 2 * (n * n + n));
  for (int64_t first = 0; first < op.x.rows; first += most) {
    const int64_t count = std::min(most, op.x.rows - first);
    xpu.launch({"systems", "solve_systems"}, line(count), op.a.row_range(first, count), op.x.row_range(first, count),
               scratch, op.ridge, static_cast<int32_t>(n), count);
  }
}

}  // namespace

void add_factor_ops(XpuOps& table) {
  table.add<factor>();
  table.add<solve_triangle>();
  table.add<solve_systems>();
}

}  // namespace gptq::opencl
