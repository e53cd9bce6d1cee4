// Matrix products: operands are packed into panels, then tasks multiply panels into tiles of the result. A sum is taken
// over k-blocks of the inner dimension whose length depends on the kernel alone, in order: how the result is cut into
// tasks never changes it.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/operands.h"

namespace gptq {
namespace {

// Of weights packed at a time, for all tasks to share.
constexpr int64_t kPackedDwords = int64_t{4} << 20;

// Of a left operand that stays in a core's second cache, and right panels that share one which does not.
constexpr int64_t kCachedDwords = int64_t{1} << 18, kPanelsAtOnce = 8;

// Right panels that are multiplied before something else is done with what they give.
constexpr int64_t kCachedPanels = 2;

// A step of tile registers is a cache line.
constexpr int64_t kStepDwords = PanelProduct::kLineDwords;

bool are_bf16(ConstMatrixView a, ConstMatrixView b) { return a.dtype == DType::bf16 && b.dtype == DType::bf16; }

// Words from one row of a left panel to the next: off the multiples of 2 kB, which share the sets of a cache.
int64_t padded_stride(int64_t dwords) { return dwords % 512 == 0 ? dwords + 16 : dwords; }

}  // namespace

int64_t CpuBackend::scratch_bytes(const OpCall& call) const {
  const auto [a, b, c, d] = call.sizes;
  const ConstMatrixView like(nullptr, call.dtype, 0, 0);
  const ProductKernel& kernel = product_kernel(like, like);
  const auto panels = [&](int64_t n, int64_t inner) {
    return pieces_of(n, kernel.cols) * kernel.cols * kernel.dwords_of(inner);
  };
  int64_t dwords = 0;
  if (call.op == "linear" || call.op == "add_linear") {
    dwords = std::min(panels(b, c), std::max(kPackedDwords, panels(1, c)));
  } else if (call.op == "gated_linear") {
    dwords = std::min(2 * panels(b, c), std::max(kPackedDwords, 2 * panels(1, c)));
  } else if (call.op == "attention") {
    dwords = pieces_of(a, std::max<int64_t>(d, 1)) * b * (panels(d, c) + panels(c, d));
  } else if (call.op == "add_gram" || call.op == "add_cross_gram") {
    dwords = gram_scratch_dwords(call);
  }
  return dwords * static_cast<int64_t>(sizeof(uint32_t));
}

const ProductKernel& CpuBackend::product_kernel(ConstMatrixView a, ConstMatrixView b) const {
  return are_bf16(a, b) && products_.multiply_bf16() ? products_.bf16 : products_.f32;
}

const ProductKernel& CpuBackend::columns_kernel(ConstMatrixView a, ConstMatrixView b) const {
  return are_bf16(a, b) && products_.multiply_bf16() ? products_.bf16_columns : products_.f32_columns;
}

ConstMatrixView CpuBackend::wide_rows(ConstMatrixView x, float* wide) const {
  for (int64_t r = 0; r < x.rows; ++r) as_f32(x, r, wide + r * x.cols);
  return {wide, DType::f32, x.rows, x.cols};
}

bool CpuBackend::is_finite(ConstMatrixView x, int64_t row) const {
  if (x.dtype == DType::f32) return kernels_.all_finite(x.row<float>(row), x.cols);
  const uint16_t exponent = x.dtype == DType::bf16 ? 0x7f80 : 0x7c00;  // all ones if infinite or NaN
  return kernels_.all_finite_16(x.row<uint16_t>(row), x.cols, exponent);
}

void CpuBackend::pack_row(const ProductKernel& kernel, ConstMatrixView x, int64_t row, int64_t dwords,
                          uint32_t* to) const {
  const MatrixView copy(to, dtype_of(kernel), 1, x.cols);
  if (x.dtype == copy.dtype)
    std::memcpy(to, dwords_at(x, row), static_cast<size_t>(row_bytes(x)));
  else if (copy.dtype == DType::f32)
    as_f32(x, row, copy.row<float>(0));
  else
    finish_row(x.row<float>(row), copy, 0);
  std::memset(static_cast<std::byte*>(copy.data) + row_bytes(copy), 0,
              static_cast<size_t>(4 * dwords - row_bytes(copy)));
}

void CpuBackend::pack_b(const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel) {
  const int64_t dwords = kernel.dwords_of(w.cols);
  const bool is_narrow = !is_packable(kernel, w.dtype);
  ScratchPool::Lease lease = scratch_.borrow(is_narrow ? w.size() : 0);
  if (is_narrow) w = wide_rows(w, lease.take(w.size()));
  products_.pack_rows(w.data, stride_bytes(w), w.rows, row_bytes(w), dwords, kernel.cols, panel, kernel.cols);
}

CpuBackend::APanels CpuBackend::pack_a(const ProductKernel& kernel, ConstMatrixView x, uint32_t* room) const {
  const int64_t dwords = kernel.dwords_of(x.cols), stride = padded_stride(dwords);
  const bool is_aligned = reinterpret_cast<uintptr_t>(x.data) % 4 == 0 && stride_bytes(x) % 4 == 0;
  const bool fills_dwords = is_packable(kernel, x.dtype) && row_bytes(x) == 4 * dwords && is_aligned;
  if (!kernel.tile_layout) {
    if (fills_dwords && x.rows % kernel.rows == 0 && stride_bytes(x) % 2048 != 0)
      return {dwords_at(x, 0), stride_bytes(x) / 4, kernel.step, kernel.rows * stride_bytes(x) / 4};
    for (int64_t r = 0; r < x.rows; ++r) pack_row(kernel, x, r, dwords, room + r * stride);
    for (int64_t r = x.rows; r < rounded_up(x.rows, kernel.rows); ++r) std::fill_n(room + r * stride, dwords, 0U);
    return {room, stride, kernel.step, kernel.rows * stride};
  }
  uint32_t* const row = room + rounded_up(x.rows, kernel.rows) * dwords;  // behind the panels
  for (int64_t r = 0; r < rounded_up(x.rows, kernel.rows); ++r) {
    const uint32_t* from = row;
    if (r >= x.rows)
      std::fill_n(row, dwords, 0U);
    else if (fills_dwords)
      from = dwords_at(x, r);
    else
      pack_row(kernel, x, r, dwords, row);
    uint32_t* to = room + r / kernel.rows * kernel.rows * dwords + r % kernel.rows * kStepDwords;
    for (int64_t k = 0; k < dwords; k += kStepDwords)
      std::memcpy(to + k * kernel.rows, from + k, kStepDwords * sizeof(uint32_t));
  }
  return {room, kStepDwords, kStepDwords * kernel.rows, kernel.rows * dwords};
}

int64_t CpuBackend::a_room(const ProductKernel& kernel, ConstMatrixView x) {
  return (rounded_up(x.rows, kernel.rows) + 1) * padded_stride(kernel.dwords_of(x.cols));
}

void CpuBackend::apply_epilogue(const float* c, int64_t c_stride, const float* bias, MatrixView y) const {
  if (y.dtype == DType::f32) {
    const bool is_there = y.row<float>(0) == c;
    if (!is_there || bias != nullptr)
      products_.epilogue_f32(c, c_stride, y.rows, y.cols, bias, y.row<float>(0), y.stride);
  } else if (y.dtype == DType::bf16) {
    products_.epilogue_bf16(c, c_stride, y.rows, y.cols, bias, y.row<uint16_t>(0), y.stride);
  } else {
    float row[64];
    for (int64_t r = 0; r < y.rows; ++r) {
      products_.epilogue_f32(c + r * c_stride, c_stride, 1, y.cols, bias, row, y.cols);
      finish_row(row, y, r);
    }
  }
}

void CpuBackend::multiply_panels(const ProductKernel& kernel, int64_t dwords, const APanels& a, const uint32_t* b,
                                 const float* bias, MatrixView y) {
  const Partition cut = k_blocks(kernel, dwords);
  const int64_t panels = pieces_of(y.cols, kernel.cols), tiles = pieces_of(y.rows, kernel.rows),
                tile_size = kernel.rows * kernel.cols;
  // Tiles that cannot be summed where they belong: all of some panels if the sum is interrupted, else one. Left panels
  // by steps that leave no room in the second cache are gone through for several right ones at a time.
  const bool is_interrupted = cut.count > 1, stays = kernel.tile_layout && y.rows * dwords <= kCachedDwords;
  const int64_t at_once = !is_interrupted ? panels : stays ? 1 : std::min(panels, kPanelsAtOnce);
  const int64_t room_size = tile_size * (is_interrupted ? tiles * at_once : 1);
  ScratchPool::Lease lease = scratch_.borrow(room_size);
  float* const room = lease.take(room_size);
  const auto columns_of = [&](int64_t k_block, int64_t j) {
    return b + (j * dwords + cut.start(k_block)) * kernel.cols;
  };
  const auto multiply_k_block = [&](int64_t k_block, int64_t j, const uint32_t* next) {
    const int64_t first = cut.start(k_block), count = std::max<int64_t>(cut.length(k_block), 0);
    const int64_t col = j * kernel.cols, cols = std::min(kernel.cols, y.cols - col);
    const auto a_panel = [&](int64_t i) { return a.data + i * a.panel_stride + first / kernel.step * a.step_stride; };
    // Of the next right panel, each tile fetches a part.
    const int64_t b_lines = pieces_of(kernel.cols, tiles);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = i * kernel.rows, rows = std::min(kernel.rows, y.rows - row);
      const bool is_whole = rows == kernel.rows && cols == kernel.cols, in_place = is_whole && y.dtype == DType::f32;
      const bool is_last = k_block + 1 >= cut.count;
      float* c =
          in_place ? y.row<float>(row) + col : room + (is_interrupted ? (j % at_once * tiles + i) * tile_size : 0);
      const int64_t c_stride = in_place ? y.stride : kernel.cols;
      const float* biases = bias == nullptr ? nullptr : bias + col;
      const PanelProduct product{
          .dwords = count,
          .a = a_panel(i),
          .row_stride = a.row_stride,
          .step_stride = a.step_stride,
          .b = columns_of(k_block, j),
          .prefetch_l1 = {.data = a_panel((i + 1) % tiles), .lines = kernel.rows, .line_stride = a.row_stride},
          .prefetch_l2 = PanelProduct::dense(next + i * b_lines * count, b_lines)};
      if (is_last && is_whole && y.dtype == DType::bf16 && kernel.multiply_to_bf16 != nullptr) {
        kernel.multiply_to_bf16(product, k_block > 0 ? c : nullptr, c_stride, biases, y.row<uint16_t>(row) + col,
                                y.stride);
        continue;
      }
      kernel.multiply(product, c, c_stride, k_block > 0);
      if (is_last) apply_epilogue(c, c_stride, biases, y.block(row, rows, col, cols));
    }
  };
  for (int64_t first = 0; first < panels; first += at_once) {
    for (int64_t k_block = 0; k_block < std::max<int64_t>(cut.count, 1); ++k_block) {
      const int64_t end = std::min(panels, first + at_once), last_k_block = cut.count - 1;
      for (int64_t j = first; j < end; ++j) {
        // Behind the last panel lies what comes next, or nothing that anyone reads.
        multiply_k_block(k_block, j,
                         j + 1 < end              ? columns_of(k_block, j + 1)
                         : k_block < last_k_block ? columns_of(k_block + 1, first)
                                                  : columns_of(0, end));
      }
    }
  }
}

void CpuBackend::pack_weight(const ProductKernel& kernel, ConstMatrixView w, uint32_t* packed) {
  const int64_t panels = pieces_of(w.rows, kernel.cols), panel_dwords = kernel.cols * kernel.dwords_of(w.cols);
  const EvenPartition packing(panels, 4 * pool_.size(), 1);
  pool_.for_each(packing.count, [&](int64_t task) {
    for (int64_t panel = packing.start(task); panel < packing.start(task + 1); ++panel) {
      const int64_t row = panel * kernel.cols;
      pack_b(kernel, w.row_range(row, std::min(kernel.cols, w.rows - row)), packed + panel * panel_dwords);
    }
  });
}

template <typename Body>
void CpuBackend::for_products(const ProductKernel& kernel, ConstMatrixView x, std::span<const Side> sides,
                              const Body& body) {
  const auto count = std::ssize(sides);
  const int64_t n_all = sides[0].w.rows, panel_dwords = kernel.cols * kernel.dwords_of(x.cols);
  const int64_t at_once = std::max<int64_t>(1, kPackedDwords / count / std::max<int64_t>(panel_dwords, 1));
  std::vector<std::vector<float>> biases;
  for (const Side& side : sides) biases.push_back(widened(side.bias));
  for (int64_t first = 0; first < n_all; first += at_once * kernel.cols) {
    const int64_t n = std::min(at_once * kernel.cols, n_all - first),
                  side_dwords = pieces_of(n, kernel.cols) * panel_dwords;
    ScratchPool::Lease lease = scratch_.borrow(count * side_dwords);
    auto* const packed = reinterpret_cast<uint32_t*>(lease.take(count * side_dwords));
    for (int64_t side = 0; side < count; ++side)
      pack_weight(kernel, sides[static_cast<size_t>(side)].w.row_range(first, n), packed + side * side_dwords);
    const TileShape shape = tile_shape(x.rows, n, kernel);
    const EvenPartition rows(x.rows, rounded_up(pieces_of(x.rows, shape.rows), pool_.size()), kernel.rows);
    const Partition cols(n, shape.cols, kernel.cols);
    pool_.for_each(rows.count * cols.count, [&](int64_t task) {
      const int64_t i = task % rows.count, j = task / rows.count;
      const ConstMatrixView part = x.row_range(rows.start(i), rows.length(i));
      ScratchPool::Lease room = scratch_.borrow(a_room(kernel, part));
      const APanels a = pack_a(kernel, part, reinterpret_cast<uint32_t*>(room.take(a_room(kernel, part))));
      // Columns [col, col + to.cols) of a side; col is a multiple of kernel.cols away from the task's first one.
      const auto multiply = [&](int64_t side, int64_t col, MatrixView to) {
        const std::vector<float>& of_side = biases[static_cast<size_t>(side)];
        multiply_panels(kernel, kernel.dwords_of(x.cols), a,
                        packed + side * side_dwords + (col - first) / kernel.cols * panel_dwords,
                        of_side.empty() ? nullptr : of_side.data() + col, to);
      };
      products_.configure_tiles();
      body(rows.start(i), rows.length(i), first + cols.start(j), cols.length(j), multiply);
      products_.release_tiles();
    });
  }
}

template <typename Finish>
void CpuBackend::multiply_in_cache(ConstMatrixView x, std::span<const Side> sides, const Finish& finish) {
  const ProductKernel& kernel = products_.bf16;
  const auto count = std::ssize(sides);
  for_products(kernel, x, sides, [&](int64_t first, int64_t rows, int64_t col, int64_t cols, const auto& multiply) {
    const int64_t width = kCachedPanels * kernel.cols, room_dwords = rows * width / kernel.k_per_dword,
                  end = col + cols;
    ScratchPool::Lease room = scratch_.borrow(count * room_dwords, 2);
    float* const places[2] = {room.take(room_dwords), count > 1 ? room.take(room_dwords) : nullptr};
    for (; col < end; col += width) {
      MatrixView values[2];
      for (int64_t side = 0; side < count; ++side) {
        values[side] = {places[side], DType::bf16, rows, std::min(width, end - col)};
        multiply(side, col, values[side]);
      }
      for (int64_t row = 0; row < rows; ++row) {
        finish(first + row, col, values[0].cols, values[0].row<uint16_t>(row),
               count > 1 ? values[1].row<uint16_t>(row) : nullptr);
      }
    }
  });
}

void CpuBackend::linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) {
  if (y.empty()) return;
  const Side sides[] = {{w, bias}};
  if (fuses_linears(x.dtype) && are_bf16(w, y)) {
    return multiply_in_cache(x, sides,
                             [&](int64_t row, int64_t col, int64_t count, const uint16_t* values, const uint16_t*) {
                               std::memcpy(y.row<uint16_t>(row) + col, values, static_cast<size_t>(2 * count));
                             });
  }
  for_products(product_kernel(x, w), x, sides,
               [&](int64_t row, int64_t rows, int64_t col, int64_t cols, const auto& multiply) {
                 multiply(0, col, y.block(row, rows, col, cols));
               });
}

void CpuBackend::gated_linear(ConstMatrixView x, const GatedWeights& weights, MatrixView y) {
  if (y.empty()) return;
  const bool all_bf16 = are_bf16(x, weights.gate) && are_bf16(y, weights.up);
  if (!fuses_linears(x.dtype) || !all_bf16 || weights.up.empty()) return Backend::gated_linear(x, weights, y);
  const auto kernel = gate_bf16(weights.activation);
  const Side sides[] = {{weights.gate, weights.gate_bias}, {weights.up, weights.up_bias}};
  multiply_in_cache(x, sides, [&](int64_t row, int64_t col, int64_t count, const uint16_t* gate, const uint16_t* up) {
    kernel(gate, up, y.row<uint16_t>(row) + col, count);
  });
}

void CpuBackend::add_linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, float factor, MatrixView y) {
  if (y.empty()) return;
  if (!fuses_linears(x.dtype) || w.dtype != DType::bf16 || y.dtype != DType::f32)
    return Backend::add_linear(x, w, bias, factor, y);
  const Side sides[] = {{w, bias}};
  multiply_in_cache(x, sides, [&](int64_t row, int64_t col, int64_t count, const uint16_t* values, const uint16_t*) {
    kernels_.add_bf16(values, factor, y.row<float>(row) + col, count);
  });
}

// Left panels are 256 rows or so: then both they and a right panel stay in the cache of a core. Smaller ones, and a cut
// across the columns, where there would be too few tasks to share.
CpuBackend::TileShape CpuBackend::tile_shape(int64_t m, int64_t n, const ProductKernel& kernel) const {
  const int64_t wanted = pool_.size() == 1 ? 1 : 4 * pool_.size();
  TileShape shape{std::max<int64_t>(256 / kernel.rows, 1) * kernel.rows, n};
  const auto tasks = [&] { return pieces_of(m, shape.rows) * pieces_of(n, shape.cols); };
  while (tasks() < wanted && shape.cols > 8 * kernel.cols) shape.cols = (shape.cols + 1) / 2;
  while (tasks() < wanted && shape.rows > 2 * kernel.rows) shape.rows = (shape.rows + 1) / 2;
  while (tasks() < wanted && shape.cols > kernel.cols) shape.cols = (shape.cols + 1) / 2;
  return shape;
}

// Of a tile's columns, the rows of F up to the diagonal are all that is packed and multiplied. Each task writes the
// sums of its rows over a k-block of columns, which are then added in order.
void CpuBackend::add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) {
  if (w.empty()) return;
  const ProductKernel& kernel = products_.multiply_bf16() ? products_.bf16 : products_.f32;
  const int64_t n = w.cols, dwords = kernel.dwords_of(n), panel_dwords = kernel.cols * dwords;
  const int64_t at_once = std::max<int64_t>(1, kPackedDwords / panel_dwords);
  const Partition rows(w.rows, 128, kernel.rows), groups(n, std::min<int64_t>(256, at_once * kernel.cols), kernel.cols);
  const int64_t panels = groups.block_size / kernel.cols;
  std::vector<float> sums(static_cast<size_t>(w.rows * groups.count));  // [rows, groups]
  const int64_t groups_at_once = std::max<int64_t>(1, at_once / panels);
  for (int64_t first = 0; first < groups.count; first += groups_at_once) {
    const int64_t count = std::min(groups_at_once, groups.count - first);
    ScratchPool::Lease lease = scratch_.borrow(count * panels * panel_dwords);
    auto* packed = reinterpret_cast<uint32_t*>(lease.take(count * panels * panel_dwords));
    const auto end_of = [&](int64_t panel) { return std::min(n, groups.start(first) + (panel + 1) * kernel.cols); };
    pool_.for_each(count * panels, [&](int64_t panel) {
      const int64_t start = groups.start(first) + panel * kernel.cols, size = kernel.dwords_of(end_of(panel));
      if (start >= n) return;
      ScratchPool::Lease room = scratch_.borrow(kernel.cols * size);
      auto* lower = reinterpret_cast<uint32_t*>(room.take(kernel.cols * size));
      for (int64_t row = start; row < end_of(panel); ++row)
        pack_row(kernel, factor.col_range(0, row + 1), row, size, lower + (row - start) * size);
      products_.pack_rows(lower, 4 * size, end_of(panel) - start, 4 * size, size, kernel.cols,
                          packed + panel * panel_dwords, kernel.cols);
    });
    pool_.for_each(rows.count * count, [&](int64_t task) {
      const int64_t i = task % rows.count, group = count - 1 - task / rows.count;  // the longest come first
      const ConstMatrixView part = w.row_range(rows.start(i), rows.length(i));
      const int64_t tile_size = kernel.rows * kernel.cols;
      ScratchPool::Lease room = scratch_.borrow(a_room(kernel, part) + tile_size, 2);
      const APanels a = pack_a(kernel, part, reinterpret_cast<uint32_t*>(room.take(a_room(kernel, part))));
      float* tile = room.take(tile_size);
      products_.configure_tiles();
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
                kernels_.sum_of_squares(tile + r * kernel.cols, kernel.cols);
          }
        }
      }
      products_.release_tiles();
    });
  }
  for (int64_t row = 0; row < w.rows; ++row) {
    const auto of_row =
        std::span(sums).subspan(static_cast<size_t>(row * groups.count), static_cast<size_t>(groups.count));
    norms.row<float>(row)[0] += std::accumulate(of_row.begin(), of_row.end(), 0.0F);
  }
}

}  // namespace gptq
