// Sums over rows, and over rows of a product that is never stored.
#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "backend/cpu/products.h"

namespace gptq::cpu {
namespace {

void group_products(CpuBackend& cpu, const ops::GroupProducts& op) {
  cpu.for_rows(op.products.rows, op.x.cols, 0, [&](int64_t row, float*) {
    for (int64_t group = 0; group < op.products.cols; ++group) {
      const int64_t first = group * op.group_size;
      op.products.row<float>(row)[group] =
          cpu.kernels.product(op.x.row<float>(row) + first, op.y.row<float>(row) + first, op.group_size);
    }
  });
}

void add_row_norms(CpuBackend& cpu, const ops::AddRowNorms& op) {
  cpu.for_rows(op.x.rows, op.x.cols, 1, [&](int64_t row, float* scratch) {
    op.norms.row<float>(row)[0] += cpu.kernels.sum_of_squares(cpu.as_f32(op.x, row, scratch), op.x.cols);
  });
}

// For a tile's columns, only the rows of F up to the diagonal are packed and multiplied. Each task writes the sums of
// its rows over a group of columns, which are then added in order.
void add_product_norms(CpuBackend& cpu, const ops::AddProductNorms& op) {
  if (op.w.empty()) return;
  const ProductKernel& kernel = cpu.products.multiply_bf16() ? cpu.products.bf16 : cpu.products.f32;
  const int64_t n = op.w.cols, words = kernel.words_of(n), panel_words = kernel.cols * words;
  const int64_t at_once = std::max<int64_t>(1, kPackedWords / panel_words);
  const Cut rows(op.w.rows, 128, kernel.rows), groups(n, std::min<int64_t>(256, at_once * kernel.cols), kernel.cols);
  const int64_t panels = groups.piece / kernel.cols;
  std::vector<float> sums(static_cast<size_t>(op.w.rows * groups.count));  // [rows, groups]
  const int64_t groups_at_once = std::max<int64_t>(1, at_once / panels);
  for (int64_t first = 0; first < groups.count; first += groups_at_once) {
    const int64_t count = std::min(groups_at_once, groups.count - first);
    ScratchPool::Lease lease = cpu.scratch.borrow(count * panels * panel_words);
    auto* packed = lease.take_words(count * panels * panel_words);
    const auto end_of = [&](int64_t panel) { return std::min(n, groups.start(first) + (panel + 1) * kernel.cols); };
    cpu.pool.for_each(count * panels, [&](int64_t panel) {
      const int64_t start = groups.start(first) + panel * kernel.cols, size = kernel.words_of(end_of(panel));
      if (start >= n) return;
      ScratchPool::Lease room = cpu.scratch.borrow(kernel.cols * size);
      auto* lower = room.take_words(kernel.cols * size);
      for (int64_t row = start; row < end_of(panel); ++row)
        pack_row(cpu, kernel, op.factor.col_range(0, row + 1), row, size, lower + (row - start) * size);
      cpu.products.interleave(lower, 4 * size, end_of(panel) - start, 4 * size, size, kernel.cols,
                              packed + panel * panel_words, kernel.cols);
    });
    cpu.pool.for_each(rows.count * count, [&](int64_t task) {
      const int64_t i = task % rows.count, group = count - 1 - task / rows.count;  // longest sums first
      const ConstMatrixView part = op.w.row_range(rows.start(i), rows.length(i));
      const int64_t tile_size = kernel.rows * kernel.cols;
      ScratchPool::Lease room = cpu.scratch.borrow(left_room(kernel, part) + tile_size, 2);
      const LeftPanels left = pack_left(cpu, kernel, part, room.take_words(left_room(kernel, part)));
      float* tile = room.take(tile_size);
      cpu.products.begin();
      for (int64_t panel = group * panels; panel < (group + 1) * panels; ++panel) {
        if (groups.start(first) + panel * kernel.cols >= n) break;
        const Cut cut = stretches(kernel, kernel.words_of(end_of(panel)));
        for (int64_t row = 0; row < part.rows; row += kernel.rows) {
          for (int64_t s = 0; s < cut.count; ++s) {
            kernel.multiply({.words = cut.length(s),
                             .left = left.data + row / kernel.rows * left.panel_stride +
                                     cut.start(s) / kernel.step * left.step_stride,
                             .row_stride = left.row_stride,
                             .step_stride = left.step_stride,
                             .right = packed + panel * panel_words + cut.start(s) * kernel.cols},
                            tile, kernel.cols, s > 0);
          }
          for (int64_t r = 0; r < std::min(kernel.rows, part.rows - row); ++r) {
            sums[static_cast<size_t>((rows.start(i) + row + r) * groups.count + first + group)] +=
                cpu.kernels.sum_of_squares(tile + r * kernel.cols, kernel.cols);
          }
        }
      }
      cpu.products.end();
    });
  }
  for (int64_t row = 0; row < op.w.rows; ++row) {
    const auto of_row =
        std::span(sums).subspan(static_cast<size_t>(row * groups.count), static_cast<size_t>(groups.count));
    op.norms.row<float>(row)[0] += std::accumulate(of_row.begin(), of_row.end(), 0.0F);
  }
}

}  // namespace

void add_row_sum_ops(CpuOps& table) {
  table.add<group_products>();
  table.add<add_row_norms>();
  table.add<add_product_norms>();
}

}  // namespace gptq::cpu
