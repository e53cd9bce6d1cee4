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
  const int64_t n = op.w.cols, dwords = kernel.dwords_of(n), panel_dwords = kernel.cols * dwords;
  const int64_t at_once = std::max<int64_t>(1, kPackedDwords / panel_dwords);
  const Partition rows(op.w.rows, 128, kernel.rows),
      groups(n, std::min<int64_t>(256, at_once * kernel.cols), kernel.cols);
  const int64_t panels = groups.block_size / kernel.cols;
  std::vector<float> sums(static_cast<size_t>(op.w.rows * groups.count));  // [rows, groups]
  const int64_t groups_at_once = std::max<int64_t>(1, at_once / panels);
  for (int64_t first = 0; first < groups.count; first += groups_at_once) {
    const int64_t count = std::min(groups_at_once, groups.count - first);
    ScratchPool::Lease lease = cpu.scratch.borrow(count * panels * panel_dwords);
    auto* packed = lease.take_dwords(count * panels * panel_dwords);
    const auto end_of = [&](int64_t panel) { return std::min(n, groups.start(first) + (panel + 1) * kernel.cols); };
    cpu.pool.for_each(count * panels, [&](int64_t panel) {
      const int64_t start = groups.start(first) + panel * kernel.cols, size = kernel.dwords_of(end_of(panel));
      if (start >= n) return;
      ScratchPool::Lease room = cpu.scratch.borrow(kernel.cols * size);
      auto* lower = room.take_dwords(kernel.cols * size);
      for (int64_t row = start; row < end_of(panel); ++row)
        pack_row(cpu, kernel, op.factor.col_range(0, row + 1), row, size, lower + (row - start) * size);
      cpu.products.pack_rows(lower, 4 * size, end_of(panel) - start, 4 * size, size, kernel.cols,
                             packed + panel * panel_dwords, kernel.cols);
    });
    cpu.pool.for_each(rows.count * count, [&](int64_t task) {
      const int64_t i = task % rows.count, group = count - 1 - task / rows.count;  // longest sums first
      const ConstMatrixView part = op.w.row_range(rows.start(i), rows.length(i));
      const int64_t tile_size = kernel.rows * kernel.cols;
      ScratchPool::Lease room = cpu.scratch.borrow(a_room(kernel, part) + tile_size, 2);
      const APanels a = pack_a(cpu, kernel, part, room.take_dwords(a_room(kernel, part)));
      float* tile = room.take(tile_size);
      cpu.products.configure_tiles();
      for (int64_t panel = group * panels; panel < (group + 1) * panels; ++panel) {
        if (groups.start(first) + panel * kernel.cols >= n) break;
        const Partition cut = k_blocks(kernel, kernel.dwords_of(end_of(panel)));
        for (int64_t row = 0; row < part.rows; row += kernel.rows) {
          for (int64_t s = 0; s < cut.count; ++s) {
            kernel.multiply(
                {.dwords = cut.length(s),
                 .a = a.data + row / kernel.rows * a.panel_stride + cut.start(s) / kernel.step * a.step_stride,
                 .row_stride = a.row_stride,
                 .step_stride = a.step_stride,
                 .b = packed + panel * panel_dwords + cut.start(s) * kernel.cols},
                tile, kernel.cols, s > 0);
          }
          for (int64_t r = 0; r < std::min(kernel.rows, part.rows - row); ++r) {
            sums[static_cast<size_t>((rows.start(i) + row + r) * groups.count + first + group)] +=
                cpu.kernels.sum_of_squares(tile + r * kernel.cols, kernel.cols);
          }
        }
      }
      cpu.products.release_tiles();
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
