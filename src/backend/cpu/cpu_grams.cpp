// Products of columns, x' y: Hessians and what the targets need. Both operands are turned into panels, then tasks
// multiply panels into tiles of the result. A sum is taken over k-blocks of tokens whose length depends on the kernel
// alone, in order: how the result is cut into tasks never changes it.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/operands.h"

namespace gptq {
namespace {

constexpr int64_t kPackedDwords = int64_t{8} << 20;  // of an operand, at a time

// Tokens that are packed, and copied if need be, at a time.
int64_t tokens_at_once(const ProductKernel& kernel, int64_t n) {
  const int64_t unit = 1024 * kernel.k_per_dword, tokens = std::max<int64_t>(1, kPackedDwords / (1024 * n)) * 1024;
  // What comes out of tile registers is worth adding after thousands of tokens only.
  if (kernel.tile_layout) return std::clamp<int64_t>(tokens, 2048, 8192);
  return std::max<int64_t>(1, kPackedDwords / (2048 * n)) * unit;
}

struct TileIndex {
  int64_t row, col;
};

// All tiles, or those that reach the lower triangle; those on the diagonal, which have least to do, last.
std::vector<TileIndex> tiles_of(const Partition& rows, const Partition& cols, bool only_lower) {
  std::vector<TileIndex> tiles;
  for (int64_t i = 0; i < rows.count; ++i) {
    for (int64_t j = 0; j < cols.count; ++j) {
      if (!only_lower || cols.start(j) < rows.start(i) + rows.length(i)) tiles.push_back({i, j});
    }
  }
  std::stable_partition(tiles.begin(), tiles.end(), [](TileIndex tile) { return tile.row != tile.col; });
  return tiles;
}

// Operands of tile registers, packed by steps: all panels of a k-block of tokens lie together, k-block by k-block.
struct TilePanels {
  static constexpr int64_t kTokens = 320;  // of a k_block: then a panel stays in the first cache beside another's steps
  const ProductKernel& kernel;
  int64_t tokens, panels;
  TilePanels(const ProductKernel& kernel, int64_t tokens, int64_t n)
      : kernel(kernel), tokens(tokens), panels(pieces_of(n, kernel.cols)) {}
  int64_t k_blocks() const { return pieces_of(tokens, kTokens); }
  int64_t tokens_of(int64_t k_block) const { return std::min(kTokens, tokens - k_block * kTokens); }
  int64_t dwords_of(int64_t k_block) const { return kernel.dwords_of(tokens_of(k_block)); }
  int64_t size() const { return panels * kernel.cols * kernel.dwords_of(tokens); }
  int64_t place(int64_t k_block, int64_t panel) const {
    return (k_block * panels * kernel.dwords_of(kTokens) + panel * dwords_of(k_block)) * kernel.cols;
  }
};

// How their product is cut into tasks: tiles of c, of some panels each way, and k-splits of tokens where c is small.
// The k-splits' sums are added in order; they depend on shapes alone, while tiles become smaller for more threads.
struct TileTasks {
  static constexpr int64_t kBlock = 12, kLeastBlock = 4;  // of a tile in panels: large ones fetch less
  Partition columns, k_splits;
  static int64_t block(int64_t panels, int64_t k_splits, int threads) {
    int64_t block = kBlock;
    const auto tasks = [&] { return pieces_of(panels, block) * (pieces_of(panels, block) + 1) / 2 * k_splits; };
    while (threads > 1 && block > kLeastBlock && tasks() < 2 * threads) block -= 2;
    return block;
  }
  TileTasks(const TilePanels& operand, int threads)
      : columns(operand.panels, kBlock, 1), k_splits(operand.k_blocks(), operand.panels <= 32 ? 16 : INT32_MAX, 1) {
    columns = Partition(operand.panels, block(operand.panels, k_splits.count, threads), 1);
  }
  // Of the sums that wait for others.
  int64_t held_floats(const ProductKernel& kernel, int64_t tiles) const {
    return k_splits.count == 1 ? 0 : tiles * k_splits.count * tile_floats(kernel);
  }
  int64_t tile_floats(const ProductKernel& kernel) const {
    return columns.block_size * columns.block_size * kernel.rows * kernel.cols;
  }
};

}  // namespace

int64_t CpuBackend::gram_scratch_dwords(const OpCall& call) const {
  const int64_t n = call.sizes[1];
  const ConstMatrixView like(nullptr, call.dtype, 0, 0);
  const ProductKernel& kernel = columns_kernel(like, like);
  const bool is_cross = call.op == "add_cross_gram";
  const int64_t tokens = std::min(call.sizes[0], tokens_at_once(kernel, n));
  int64_t dwords = 0;
  if (kernel.tile_layout) {
    const TilePanels operand(kernel, tokens, n);
    const TileTasks cut(operand, pool_.size());
    const int64_t tiles =
        is_cross ? cut.columns.count * cut.columns.count : cut.columns.count * (cut.columns.count + 1) / 2;
    dwords = 2 * operand.size() + cut.held_floats(kernel, tiles);
  } else {
    dwords = (is_cross ? 2 : 1) * rounded_up(n, kernel.cols) * kernel.dwords_of(tokens);
  }
  if (is_cross || !is_packable(kernel, call.dtype)) dwords += 2 * tokens * n / kernel.k_per_dword;
  return dwords;
}

void CpuBackend::pack_columns(const ProductKernel& kernel, ConstMatrixView x, int64_t dwords, int64_t width,
                              uint32_t* panel) const {
  if (kernel.k_per_dword == 2)
    products_.pack_column_pairs(x.row<uint16_t>(0), x.stride, x.rows, x.cols, dwords, width, panel);
  else
    products_.pack_columns(x.row<uint32_t>(0), x.stride, x.rows, x.cols, dwords, width, panel);
}

bool CpuBackend::add_column_products(ConstMatrixView left, ConstMatrixView right, bool only_lower, MatrixView c) {
  const ProductKernel& kernel = columns_kernel(left, right);
  if (kernel.tile_layout) return add_column_products_in_tiles(left, right, only_lower, c);
  const int64_t n = c.rows, dwords = kernel.dwords_of(left.rows), width = kernel.cols;
  const int64_t packed_dwords = rounded_up(n, width) * dwords;
  const bool is_same = left.data == right.data;
  ScratchPool::Lease lease = scratch_.borrow((is_same ? 1 : 2) * packed_dwords, 2);
  auto* const packed_b = reinterpret_cast<uint32_t*>(lease.take(packed_dwords));
  auto* const packed_a = is_same ? packed_b : reinterpret_cast<uint32_t*>(lease.take(packed_dwords));

  // A task packs some tokens for all panels: it reads whole rows, and looks at them first, which fetches them into the
  // cache too.
  constexpr int64_t kWords = 32;
  std::atomic<bool> are_finite = true;
  pool_.for_each(pieces_of(dwords, kWords), [&](int64_t task) {
    const int64_t first = task * kWords, count = std::min(kWords, dwords - first);
    const int64_t token = std::min(first * kernel.k_per_dword, left.rows),
                  tokens = std::min(kWords * kernel.k_per_dword, left.rows - token);
    for (int64_t row = token; is_same && row < token + tokens; ++row) {
      if (!is_finite(right, row)) are_finite = false;
    }
    if (!are_finite) return;
    for (int64_t col = 0; col < n; col += width) {
      const auto pack = [&](ConstMatrixView x, uint32_t* packed) {
        pack_columns(kernel, x.block(token, tokens, col, std::min(width, n - col)), count, width,
                     packed + col * dwords + first * width);
      };
      pack(right, packed_b);
      if (!is_same) pack(left, packed_a);
    }
  });
  if (!are_finite) return false;

  const Partition k_block = k_blocks(kernel, dwords);
  // A task's panels of a k-block stay in the second cache; with smaller tasks, threads end together.
  int64_t block = 192;
  while (pool_.size() > 1 && block > 48 && pieces_of(n, block) * pieces_of(n, block) / 2 < 8 * pool_.size()) block /= 2;
  const Partition rows(n, block, kernel.rows), cols(n, block, kernel.cols);
  const std::vector<TileIndex> tiles = tiles_of(rows, cols, only_lower);
  pool_.for_each(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[static_cast<size_t>(task)];
    const int64_t row_end = rows.start(i) + rows.length(i), col_end = cols.start(j) + cols.length(j);
    ScratchPool::Lease room = scratch_.borrow(kernel.rows * kernel.cols);
    float* border = room.take(kernel.rows * kernel.cols);
    for (int64_t s = 0; s < k_block.count; ++s) {
      for (int64_t col = cols.start(j); col < col_end; col += kernel.cols) {
        for (int64_t row = rows.start(i); row < row_end; row += kernel.rows) {
          if (only_lower && col >= row + kernel.rows) continue;
          // Of a tile on the diagonal, the registers that reach below it.
          const int64_t wanted = only_lower ? std::min(kernel.cols, row + kernel.rows - col) : kernel.cols;
          const bool is_whole = row + kernel.rows <= n && col + kernel.cols <= n;
          const uint32_t* a = packed_a + row / width * width * dwords + k_block.start(s) * width + row % width;
          const uint32_t* b = packed_b + col * dwords + k_block.start(s) * kernel.cols;
          float* to = c.row<float>(row) + col;
          // A panel's tiles of rows fetch the next panel together, each its part.
          const uint32_t* const next = packed_a + (row / width + 1) * width * dwords + k_block.start(s) * width +
                                       row % width * k_block.length(s);
          kernel.multiply_first(wanted)({.dwords = k_block.length(s),
                                         .a = a,
                                         .row_stride = kernel.step,
                                         .step_stride = width,
                                         .b = b,
                                         .prefetch_l1 = PanelProduct::dense(next, kernel.rows)},
                                        is_whole ? to : border, is_whole ? c.stride : kernel.cols, is_whole);
          if (is_whole) continue;
          for (int64_t r = 0; r < std::min(kernel.rows, n - row); ++r)
            kernels_.add(border + r * kernel.cols, 1, to + r * c.stride, std::min(wanted, n - col));
        }
      }
    }
  });
  return true;
}

// Panels of columns are packed for tile registers, as left operands, right ones or both, where `left` or `right` is not
// null. Returns false if not all elements are finite.
bool CpuBackend::pack_columns_for_tiles(const ProductKernel& kernel, ConstMatrixView x, uint32_t* left,
                                        uint32_t* right) {
  const TilePanels to(kernel, x.rows, x.cols);
  const int64_t width = kernel.cols, step_tokens = kernel.step * kernel.k_per_dword, step_dwords = kernel.step * width;
  std::atomic<bool> are_finite = true;
  pool_.for_each(to.k_blocks(), [&](int64_t k_block) {
    bool is_finite = true;
    for (int64_t first = 0; first < to.tokens_of(k_block); first += step_tokens) {
      const int64_t token = k_block * TilePanels::kTokens + first, tokens = std::min(step_tokens, x.rows - token);
      for (int64_t panel = 0; panel < to.panels; ++panel) {
        const int64_t col = panel * width, place = to.place(k_block, panel) + first / step_tokens * step_dwords;
        is_finite &= products_.pack_column_tiles(
            x.row<uint16_t>(token) + col, x.stride, tokens, std::min(width, x.cols - col),
            left == nullptr ? nullptr : left + place, right == nullptr ? nullptr : right + place);
      }
    }
    if (!is_finite) are_finite = false;
  });
  return are_finite;
}

// A task sums a tile of c in its core's cache.
bool CpuBackend::add_column_products_in_tiles(ConstMatrixView left, ConstMatrixView right, bool only_lower,
                                              MatrixView c) {
  const ProductKernel& kernel = columns_kernel(left, right);
  const int64_t n = c.rows, width = kernel.cols, step_dwords = kernel.step * width;
  const TilePanels operand(kernel, left.rows, n);
  const TileTasks cut(operand, pool_.size());
  const std::vector<TileIndex> tiles = tiles_of(cut.columns, cut.columns, only_lower);
  const int64_t k_splits = cut.k_splits.count, block_floats = width * width, tile_floats = cut.tile_floats(kernel);
  const int64_t held = cut.held_floats(kernel, std::ssize(tiles));
  ScratchPool::Lease lease = scratch_.borrow(2 * operand.size() + held, 3);
  auto* const packed_a = reinterpret_cast<uint32_t*>(lease.take(operand.size()));
  auto* const packed_b = reinterpret_cast<uint32_t*>(lease.take(operand.size()));
  float* const held_sums = lease.take(held);
  if (left.data == right.data) {
    if (!pack_columns_for_tiles(kernel, right, packed_a, packed_b)) return false;
  } else {
    pack_columns_for_tiles(kernel, left, packed_a, nullptr);
    pack_columns_for_tiles(kernel, right, nullptr, packed_b);
  }

  // Calls body(i, j, the block's place in a tile's sums) for panels of rows and columns that meet in c.
  const auto for_blocks = [&](TileIndex tile, const auto& body) {
    const int64_t row = cut.columns.start(tile.row), col = cut.columns.start(tile.col);
    for (int64_t j = 0; j < cut.columns.length(tile.col); ++j) {
      for (int64_t i = 0; i < cut.columns.length(tile.row); ++i) {
        if (!only_lower || col + j <= row + i) body(row + i, col + j, (j * cut.columns.block_size + i) * block_floats);
      }
    }
  };
  const auto add_to_c = [&](TileIndex tile, const float* sums) {
    for_blocks(tile, [&](int64_t i, int64_t j, int64_t place) {
      products_.add_column_tile(sums + place, std::min(width, n - i * width), std::min(width, n - j * width),
                                c.row<float>(i * width) + j * width, c.stride);
    });
  };
  pool_.for_each(std::ssize(tiles) * k_splits, [&](int64_t task) {
    const TileIndex tile = tiles[static_cast<size_t>(task / k_splits)];
    const int64_t k_split = task % k_splits, first = cut.k_splits.start(k_split),
                  end = first + cut.k_splits.length(k_split);
    ScratchPool::Lease room = scratch_.borrow(k_splits == 1 ? tile_floats : 0);
    float* const sums = k_splits == 1 ? room.take(tile_floats) : held_sums + task * tile_floats;
    const int64_t rows = cut.columns.length(tile.row), cols = cut.columns.length(tile.col);
    int64_t blocks = 0;
    for_blocks(tile, [&](int64_t, int64_t, int64_t) { ++blocks; });
    products_.configure_tiles();
    for (int64_t k_block = first; k_block < end; ++k_block) {
      // The next k-block's panels, first those of rows, are fetched bit by bit.
      const int64_t next = std::min(k_block + 1, end - 1), steps = operand.dwords_of(next) / kernel.step,
                    lines_ahead = pieces_of((rows + cols) * width, blocks),
                    dwords_ahead = lines_ahead * steps * PanelProduct::kLineDwords;
      const uint32_t* const next_a = packed_a + operand.place(next, cut.columns.start(tile.row));
      const uint32_t* const next_b = packed_b + operand.place(next, cut.columns.start(tile.col));
      int64_t block = 0;
      for_blocks(tile, [&](int64_t i, int64_t j, int64_t place) {
        const int64_t ahead = block++ * dwords_ahead, of_b = ahead - rows * operand.dwords_of(next) * width;
        kernel.multiply({.dwords = operand.dwords_of(k_block),
                         .a = packed_a + operand.place(k_block, i),
                         .row_stride = kernel.step,
                         .step_stride = step_dwords,
                         .b = packed_b + operand.place(k_block, j),
                         .prefetch_l2 = PanelProduct::dense(of_b < 0 ? next_a + ahead : next_b + of_b, lines_ahead)},
                        sums + place, width, k_block > first);
      });
    }
    products_.release_tiles();
    if (k_splits == 1) add_to_c(tile, sums);
  });
  if (k_splits == 1) return true;
  pool_.for_each(std::ssize(tiles), [&](int64_t task) {
    for (int64_t k_split = 0; k_split < k_splits; ++k_split)
      add_to_c(tiles[static_cast<size_t>(task)], held_sums + (task * k_splits + k_split) * tile_floats);
  });
  return true;
}

// Tokens that are not finite become zeros in a copy; the usual input is never copied.
void CpuBackend::add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) {
  if (x.empty()) return;
  const ProductKernel& kernel = columns_kernel(x, x);
  const int64_t at_once = tokens_at_once(kernel, x.cols);
  for (int64_t start = 0; start < x.rows; start += at_once) {
    const ConstMatrixView part = x.row_range(start, std::min(at_once, x.rows - start));
    if (is_packable(kernel, x.dtype) && add_column_products(part, part, true, h)) continue;
    Matrix copy(host_memory(), dtype_of(kernel), part.rows, x.cols);
    std::atomic<int32_t> zeros = 0;
    for_rows(part.rows, x.cols, 0, [&](int64_t row, float*) {
      void* to = copy.view().row_range(row, 1).data;
      if (!is_finite(part, row)) {
        std::memset(to, 0, static_cast<size_t>(row_bytes(copy)));
        ++zeros;
      } else if (part.dtype == copy.dtype()) {
        std::memcpy(to, dwords_at(part, row), static_cast<size_t>(row_bytes(part)));
      } else {
        as_f32(part, row, copy.row<float>(row));
      }
    });
    dropped.row<int32_t>(0)[0] += zeros;
    add_column_products(copy, copy, true, h);
  }
}

// Rows that are finite in both are copied together with their differences, a few thousand at a time; others are zeros.
void CpuBackend::add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) {
  if (x.empty()) return;
  constexpr int64_t kTokens = 320;
  const int64_t n = x.cols;
  const DType dtype = dtype_of(columns_kernel(x, x));
  Matrix values(host_memory(), dtype, std::min(x.rows, kTokens), n),
      differences(host_memory(), dtype, values.rows(), n);
  for (int64_t start = 0; start < x.rows; start += kTokens) {
    const int64_t tokens = std::min(kTokens, x.rows - start);
    for_rows(tokens, n, 3, [&](int64_t row, float* scratch) {
      const float *own = as_f32(x, start + row, scratch), *theirs = as_f32(original, start + row, scratch + n);
      float *value = begin_row(values, row, scratch), *difference = begin_row(differences, row, scratch + 2 * n);
      if (kernels_.all_finite(own, n) && kernels_.all_finite(theirs, n)) {
        std::copy_n(theirs, n, difference);
        kernels_.add(own, -1, difference, n);
        if (value != own) std::copy_n(own, n, value);
        if (x.dtype != DType::f32 && dtype == DType::f32) round_row(difference, x.dtype, n);
      } else {
        std::fill_n(value, n, 0.0F);
        std::fill_n(difference, n, 0.0F);
      }
      finish_row(value, values, row);
      finish_row(difference, differences, row);
    });
    add_column_products(values.view().row_range(0, tokens), differences.view().row_range(0, tokens), false, c);
  }
}

}  // namespace gptq
