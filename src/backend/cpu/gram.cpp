// Products of columns, x' y: Hessians, and the cross products of the targets. Both operands are packed into panels,
// then tasks multiply panels into tiles of the result. A sum runs over k-blocks of tokens whose length depends on the
// kernel alone, in order: how the result is split into tasks never changes it.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "backend/cpu/products.h"

namespace gptq::cpu {
namespace {

constexpr int64_t kOperandDwords = int64_t{8} << 20;  // of a packed operand at a time

// Tokens that are packed, and copied if need be, at a time.
int64_t tokens_at_once(const ProductKernel& kernel, int64_t n) {
  const int64_t unit = 1024 * kernel.k_per_dword, tokens = std::max<int64_t>(1, kOperandDwords / (1024 * n)) * 1024;
  // AMX: accumulate thousands of tokens per call, since adding a tile to c costs as much as many steps.
  if (kernel.tile_layout) return std::clamp<int64_t>(tokens, 2048, 8192);
  return std::max<int64_t>(1, kOperandDwords / (2048 * n)) * unit;
}

struct TileIndex {
  int64_t row, col;
};

// All tiles, or those that reach the lower triangle; those on the diagonal, which have the least work, come last.
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

// Operands for AMX, packed by steps: k-block after k-block of tokens, with all panels of a k-block together.
struct StepPanels {
  static constexpr int64_t kTokens = 320;  // of a k-block: a panel of it stays in L1 while another one's steps pass
  const ProductKernel& kernel;
  int64_t tokens, panels;
  StepPanels(const ProductKernel& kernel, int64_t tokens, int64_t n)
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
// The sums of k-splits are added in order. K-splits depend on shapes alone, while tiles become smaller for more
// threads.
struct StepCut {
  static constexpr int64_t kEdge = 12, kLeastEdge = 4;  // of a tile in panels: large ones load less
  Partition columns, splits;
  static int64_t edge(int64_t panels, int64_t splits, int threads) {
    int64_t edge = kEdge;
    const auto tasks = [&] { return pieces_of(panels, edge) * (pieces_of(panels, edge) + 1) / 2 * splits; };
    while (threads > 1 && edge > kLeastEdge && tasks() < int64_t{2} * threads) edge -= 2;
    return edge;
  }
  StepCut(const StepPanels& operand, int threads)
      : columns(operand.panels, kEdge, 1), splits(operand.k_blocks(), operand.panels <= 32 ? 16 : INT32_MAX, 1) {
    columns = Partition(operand.panels, edge(operand.panels, splits.count, threads), 1);
  }
  // Partial tiles held until the reduction over k-splits.
  int64_t held_floats(const ProductKernel& kernel, int64_t tiles) const {
    return splits.count == 1 ? 0 : tiles * splits.count * tile_floats(kernel);
  }
  int64_t tile_floats(const ProductKernel& kernel) const {
    return columns.block_size * columns.block_size * kernel.rows * kernel.cols;
  }
};

// Bytes of the packed operands and of copies of them.
int64_t gram_scratch(const CpuBackend& cpu, const OpCall& call, bool is_cross) {
  const int64_t n = call.sizes[1];
  const ProductKernel& kernel = columns_kernel(cpu, call.dtype);
  const int64_t tokens = std::min(call.sizes[0], tokens_at_once(kernel, n));
  int64_t dwords = 0;
  if (kernel.tile_layout) {
    const StepPanels operand(kernel, tokens, n);
    const StepCut cut(operand, cpu.pool.size());
    const int64_t tiles =
        is_cross ? cut.columns.count * cut.columns.count : cut.columns.count * (cut.columns.count + 1) / 2;
    dwords = 2 * operand.size() + cut.held_floats(kernel, tiles);
  } else {
    dwords = (is_cross ? 2 : 1) * rounded_up(n, kernel.cols) * kernel.dwords_of(tokens);
  }
  if (is_cross || !is_packable(kernel, call.dtype)) dwords += 2 * tokens * n / kernel.k_per_dword;
  return dwords * kDwordBytes;
}

// Packs panels of columns for tile registers, as A operands, right ones or both, where `left` or `right` is not
// null. Returns false if not all elements are finite.
bool pack_columns_as_tiles(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, uint32_t* left,
                           uint32_t* right) {
  const StepPanels to(kernel, x.rows, x.cols);
  const int64_t width = kernel.cols, step_tokens = kernel.step * kernel.k_per_dword, step_dwords = kernel.step * width;
  std::atomic<bool> are_finite = true;
  cpu.pool.for_each(to.k_blocks(), [&](int64_t k_block) {
    bool is_finite = true;
    for (int64_t first = 0; first < to.tokens_of(k_block); first += step_tokens) {
      const int64_t token = k_block * StepPanels::kTokens + first, tokens = std::min(step_tokens, x.rows - token);
      for (int64_t panel = 0; panel < to.panels; ++panel) {
        const int64_t col = panel * width, place = to.place(k_block, panel) + first / step_tokens * step_dwords;
        is_finite &= cpu.products.pack_column_tiles(
            x.row<uint16_t>(token) + col, x.stride, tokens, std::min(width, x.cols - col),
            left == nullptr ? nullptr : left + place, right == nullptr ? nullptr : right + place);
      }
    }
    if (!is_finite) are_finite = false;
  });
  return are_finite;
}

// c += left' right with AMX. A task sums a tile of c in its core's cache.
bool add_column_products_as_tiles(CpuBackend& cpu, ConstMatrixView left, ConstMatrixView right, bool only_lower,
                                  MatrixView c) {
  const ProductKernel& kernel = columns_kernel(cpu, left, right);
  const int64_t n = c.rows, width = kernel.cols, step_dwords = kernel.step * width;
  const StepPanels operand(kernel, left.rows, n);
  const StepCut cut(operand, cpu.pool.size());
  const std::vector<TileIndex> tiles = tiles_of(cut.columns, cut.columns, only_lower);
  const int64_t splits = cut.splits.count, block_floats = width * width, tile_floats = cut.tile_floats(kernel);
  const int64_t held = cut.held_floats(kernel, std::ssize(tiles));
  ScratchPool::Lease lease = cpu.scratch.borrow(2 * operand.size() + held, 3);
  auto* const a_packed = lease.take_dwords(operand.size());
  auto* const b_packed = lease.take_dwords(operand.size());
  float* const held_sums = lease.take(held);
  if (left.data == right.data) {
    if (!pack_columns_as_tiles(cpu, kernel, right, a_packed, b_packed)) return false;
  } else {
    pack_columns_as_tiles(cpu, kernel, left, a_packed, nullptr);
    pack_columns_as_tiles(cpu, kernel, right, nullptr, b_packed);
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
      cpu.products.add_column_tile(sums + place, std::min(width, n - i * width), std::min(width, n - j * width),
                                   c.row<float>(i * width) + j * width, c.stride);
    });
  };
  cpu.pool.for_each(std::ssize(tiles) * splits, [&](int64_t task) {
    const TileIndex tile = tiles[static_cast<size_t>(task / splits)];
    const int64_t split = task % splits, first = cut.splits.start(split), end = first + cut.splits.length(split);
    ScratchPool::Lease room = cpu.scratch.borrow(splits == 1 ? tile_floats : 0);
    float* const sums = splits == 1 ? room.take(tile_floats) : held_sums + task * tile_floats;
    const int64_t rows = cut.columns.length(tile.row), cols = cut.columns.length(tile.col);
    int64_t blocks = 0;
    for_blocks(tile, [&](int64_t, int64_t, int64_t) { ++blocks; });
    cpu.products.configure_tiles();
    for (int64_t k_block = first; k_block < end; ++k_block) {
      // Each block prefetches its share of the next k-block's panels, first those of rows.
      const int64_t next = std::min(k_block + 1, end - 1), steps = operand.dwords_of(next) / kernel.step,
                    lines_ahead = pieces_of((rows + cols) * width, blocks),
                    dwords_ahead = lines_ahead * steps * PanelProduct::kLineDwords;
      const uint32_t* const next_a = a_packed + operand.place(next, cut.columns.start(tile.row));
      const uint32_t* const next_b = b_packed + operand.place(next, cut.columns.start(tile.col));
      int64_t block = 0;
      for_blocks(tile, [&](int64_t i, int64_t j, int64_t place) {
        const int64_t ahead = block++ * dwords_ahead, of_b = ahead - rows * operand.dwords_of(next) * width;
        kernel.multiply({.dwords = operand.dwords_of(k_block),
                         .a = a_packed + operand.place(k_block, i),
                         .row_stride = kernel.step,
                         .step_stride = step_dwords,
                         .b = b_packed + operand.place(k_block, j),
                         .prefetch_l2 = PanelProduct::dense(of_b < 0 ? next_a + ahead : next_b + of_b, lines_ahead)},
                        sums + place, width, k_block > first);
      });
    }
    cpu.products.release_tiles();
    if (splits == 1) add_to_c(tile, sums);
  });
  if (splits == 1) return true;
  cpu.pool.for_each(std::ssize(tiles), [&](int64_t task) {
    for (int64_t split = 0; split < splits; ++split)
      add_to_c(tiles[static_cast<size_t>(task)], held_sums + (task * splits + split) * tile_floats);
  });
  return true;
}

// c += left' right; where `only_lower`, only in tiles that reach the lower triangle. Where both operands are the same
// matrix, returns false and leaves c as it is if not all elements are finite.
// left, right [tokens, n] of a dtype that their kernel packs, c [n, n] f32
bool add_column_products(CpuBackend& cpu, ConstMatrixView left, ConstMatrixView right, bool only_lower, MatrixView c) {
  const ProductKernel& kernel = columns_kernel(cpu, left, right);
  if (kernel.tile_layout) return add_column_products_as_tiles(cpu, left, right, only_lower, c);
  const int64_t n = c.rows, dwords = kernel.dwords_of(left.rows), width = kernel.cols;
  const int64_t packed_dwords = rounded_up(n, width) * dwords;
  const bool is_same = left.data == right.data;
  ScratchPool::Lease lease = cpu.scratch.borrow((is_same ? 1 : 2) * packed_dwords, 2);
  auto* const b_packed = lease.take_dwords(packed_dwords);
  auto* const a_packed = is_same ? b_packed : lease.take_dwords(packed_dwords);

  // A task packs some tokens for all panels. It reads whole rows, and checks them first, which brings them into the
  // cache.
  constexpr int64_t kDwords = 32;
  std::atomic<bool> are_finite = true;
  cpu.pool.for_each(pieces_of(dwords, kDwords), [&](int64_t task) {
    const int64_t first = task * kDwords, count = std::min(kDwords, dwords - first);
    const int64_t token = std::min(first * kernel.k_per_dword, left.rows),
                  tokens = std::min(kDwords * kernel.k_per_dword, left.rows - token);
    for (int64_t row = token; is_same && row < token + tokens; ++row) {
      if (!is_finite(cpu, right, row)) are_finite = false;
    }
    if (!are_finite) return;
    for (int64_t col = 0; col < n; col += width) {
      const auto pack = [&](ConstMatrixView x, uint32_t* packed) {
        pack_columns(cpu, kernel, x.block(token, tokens, col, std::min(width, n - col)), count, width,
                     packed + col * dwords + first * width);
      };
      pack(right, b_packed);
      if (!is_same) pack(left, a_packed);
    }
  });
  if (!are_finite) return false;

  const Partition blocks = k_blocks(kernel, dwords);
  // A task's panels of a k-block stay in L2; with smaller tasks, threads end together.
  int64_t edge = 192;
  while (cpu.pool.size() > 1 && edge > 48 && pieces_of(n, edge) * pieces_of(n, edge) / 2 < int64_t{8} * cpu.pool.size())
    edge /= 2;
  const Partition rows(n, edge, kernel.rows), cols(n, edge, kernel.cols);
  const std::vector<TileIndex> tiles = tiles_of(rows, cols, only_lower);
  cpu.pool.for_each(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[static_cast<size_t>(task)];
    const int64_t row_end = rows.start(i) + rows.length(i), col_end = cols.start(j) + cols.length(j);
    ScratchPool::Lease room = cpu.scratch.borrow(kernel.rows * kernel.cols);
    float* border = room.take(kernel.rows * kernel.cols);
    for (int64_t s = 0; s < blocks.count; ++s) {
      for (int64_t col = cols.start(j); col < col_end; col += kernel.cols) {
        for (int64_t row = rows.start(i); row < row_end; row += kernel.rows) {
          if (only_lower && col >= row + kernel.rows) continue;
          // Columns of a tile on the diagonal that reach below it.
          const int64_t wanted = only_lower ? std::min(kernel.cols, row + kernel.rows - col) : kernel.cols;
          const bool is_whole = row + kernel.rows <= n && col + kernel.cols <= n;
          const uint32_t* a = a_packed + row / width * width * dwords + blocks.start(s) * width + row % width;
          const uint32_t* b = b_packed + col * dwords + blocks.start(s) * kernel.cols;
          float* to = c.row<float>(row) + col;
          // Each micro-tile prefetches its share of the next panel of rows.
          const uint32_t* const next =
              a_packed + (row / width + 1) * width * dwords + blocks.start(s) * width + row % width * blocks.length(s);
          kernel.multiply_first(wanted)({.dwords = blocks.length(s),
                                         .a = a,
                                         .row_stride = kernel.step,
                                         .step_stride = width,
                                         .b = b,
                                         .prefetch_l1 = PanelProduct::dense(next, kernel.rows)},
                                        is_whole ? to : border, is_whole ? c.stride : kernel.cols, is_whole);
          if (is_whole) continue;
          for (int64_t r = 0; r < std::min(kernel.rows, n - row); ++r)
            cpu.kernels.add(border + r * kernel.cols, 1, to + r * c.stride, std::min(wanted, n - col));
        }
      }
    }
  });
  return true;
}

// Rounds n floats to a 16-bit dtype and widens them again.
void round_row(const CpuBackend& cpu, float* row, DType dtype, int64_t n) {
  constexpr int64_t kPiece = 256;
  uint16_t rounded[kPiece];
  for (int64_t first = 0; first < n; first += kPiece) {
    const int64_t count = std::min(kPiece, n - first);
    const MatrixView piece(rounded, dtype, 1, count);
    cpu.finish_row(row + first, piece, 0);
    cpu.as_f32(piece, 0, row + first);
  }
}

// Tokens that are not finite become zeros in a copy; the usual input is never copied.
void add_gram(CpuBackend& cpu, const ops::AddGram& op) {
  if (op.x.empty()) return;
  const ProductKernel& kernel = columns_kernel(cpu, op.x, op.x);
  const int64_t at_once = tokens_at_once(kernel, op.x.cols);
  for (int64_t start = 0; start < op.x.rows; start += at_once) {
    const ConstMatrixView part = op.x.row_range(start, std::min(at_once, op.x.rows - start));
    if (is_packable(kernel, op.x.dtype) && add_column_products(cpu, part, part, true, op.h)) continue;
    Matrix copy(host_memory(), dtype_of(kernel), part.rows, op.x.cols);
    std::atomic<int32_t> zeros = 0;
    cpu.for_rows(part.rows, op.x.cols, 0, [&](int64_t row, float*) {
      void* to = copy.view().row_range(row, 1).data;
      if (!is_finite(cpu, part, row)) {
        std::memset(to, 0, static_cast<size_t>(row_bytes(copy)));
        ++zeros;
      } else if (part.dtype == copy.dtype()) {
        std::memcpy(to, dwords_at(part, row), static_cast<size_t>(row_bytes(part)));
      } else {
        cpu.as_f32(part, row, copy.row<float>(row));
      }
    });
    op.dropped.row<int32_t>(0)[0] += zeros;
    add_column_products(cpu, copy, copy, true, op.h);
  }
}

// Rows that are finite in both are copied together with their differences, 320 at a time; others become zeros.
void add_cross_gram(CpuBackend& cpu, const ops::AddCrossGram& op) {
  if (op.x.empty()) return;
  constexpr int64_t kTokens = 320;
  const int64_t n = op.x.cols;
  const DType dtype = dtype_of(columns_kernel(cpu, op.x, op.x));
  Matrix values(host_memory(), dtype, std::min(op.x.rows, kTokens), n),
      differences(host_memory(), dtype, values.rows(), n);
  for (int64_t start = 0; start < op.x.rows; start += kTokens) {
    const int64_t tokens = std::min(kTokens, op.x.rows - start);
    cpu.for_rows(tokens, n, 3, [&](int64_t row, float* scratch) {
      const float *own = cpu.as_f32(op.x, start + row, scratch),
                  *theirs = cpu.as_f32(op.original, start + row, scratch + n);
      float *value = cpu.begin_row(values, row, scratch),
            *difference = cpu.begin_row(differences, row, scratch + 2 * n);
      if (cpu.kernels.all_finite(own, n) && cpu.kernels.all_finite(theirs, n)) {
        std::copy_n(theirs, n, difference);
        cpu.kernels.add(own, -1, difference, n);
        if (value != own) std::copy_n(own, n, value);
        if (op.x.dtype != DType::f32 && dtype == DType::f32) round_row(cpu, difference, op.x.dtype, n);
      } else {
        std::fill_n(value, n, 0.0F);
        std::fill_n(difference, n, 0.0F);
      }
      cpu.finish_row(value, values, row);
      cpu.finish_row(difference, differences, row);
    });
    add_column_products(cpu, values.view().row_range(0, tokens), differences.view().row_range(0, tokens), false, op.c);
  }
}

}  // namespace

void add_gram_ops(CpuOps& table) {
  table.add<add_gram>([](const CpuBackend& cpu, const OpCall& call) { return gram_scratch(cpu, call, false); });
  table.add<add_cross_gram>([](const CpuBackend& cpu, const OpCall& call) { return gram_scratch(cpu, call, true); });
}

}  // namespace gptq::cpu
