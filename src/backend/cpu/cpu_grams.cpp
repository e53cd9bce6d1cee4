// Products of columns, x' y: Hessians and what the targets need. Both operands are turned into panels, then tasks
// multiply panels into tiles of the result. A sum is taken over stretches of tokens whose length depends on the kernel
// alone, in order: how the result is cut into tasks never changes it.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/panels.h"

namespace gptq {
namespace {

constexpr int64_t kPackedWords = int64_t{8} << 20;  // of an operand, at a time

// Tokens that are packed, and copied if need be, at a time.
int64_t tokens_at_once(const ProductKernel& kernel, int64_t n) {
  const int64_t unit = 1024 * kernel.word, tokens = std::max<int64_t>(1, kPackedWords / (1024 * n)) * 1024;
  // What comes out of tile registers is worth adding after thousands of tokens only.
  if (kernel.by_steps) return std::clamp<int64_t>(tokens, 2048, 8192);
  return std::max<int64_t>(1, kPackedWords / (2048 * n)) * unit;
}

struct TileIndex {
  int64_t row, col;
};

// All tiles, or those that reach the lower triangle; those on the diagonal, which have least to do, last.
std::vector<TileIndex> tiles_of(const Cut& rows, const Cut& cols, bool only_lower) {
  std::vector<TileIndex> tiles;
  for (int64_t i = 0; i < rows.count; ++i) {
    for (int64_t j = 0; j < cols.count; ++j) {
      if (!only_lower || cols.start(j) < rows.start(i) + rows.length(i)) tiles.push_back({i, j});
    }
  }
  std::stable_partition(tiles.begin(), tiles.end(), [](TileIndex tile) { return tile.row != tile.col; });
  return tiles;
}

// Operands of tile registers, packed by steps: all panels of a stretch of tokens lie together, stretch by stretch.
struct StepPanels {
  static constexpr int64_t kTokens = 320;  // of a stretch: then a panel stays in the first cache beside another's steps
  const ProductKernel& kernel;
  int64_t tokens, panels;
  StepPanels(const ProductKernel& kernel, int64_t tokens, int64_t n)
      : kernel(kernel), tokens(tokens), panels(pieces_of(n, kernel.cols)) {}
  int64_t stretches() const { return pieces_of(tokens, kTokens); }
  int64_t tokens_of(int64_t stretch) const { return std::min(kTokens, tokens - stretch * kTokens); }
  int64_t words_of(int64_t stretch) const { return kernel.words_of(tokens_of(stretch)); }
  int64_t size() const { return panels * kernel.cols * kernel.words_of(tokens); }
  int64_t place(int64_t stretch, int64_t panel) const {
    return (stretch * panels * kernel.words_of(kTokens) + panel * words_of(stretch)) * kernel.cols;
  }
};

// How their product is cut into tasks: tiles of c, of some panels each way, and slabs of tokens where c is small. The
// slabs' sums are added in order; they depend on shapes alone, while tiles become smaller for more threads.
struct StepCut {
  static constexpr int64_t kEdge = 12, kLeastEdge = 4;  // of a tile in panels: large ones fetch less
  Cut columns, slabs;
  static int64_t edge(int64_t panels, int64_t slabs, int threads) {
    int64_t edge = kEdge;
    const auto tasks = [&] { return pieces_of(panels, edge) * (pieces_of(panels, edge) + 1) / 2 * slabs; };
    while (threads > 1 && edge > kLeastEdge && tasks() < 2 * threads) edge -= 2;
    return edge;
  }
  StepCut(const StepPanels& operand, int threads)
      : columns(operand.panels, kEdge, 1), slabs(operand.stretches(), operand.panels <= 32 ? 16 : INT32_MAX, 1) {
    columns = Cut(operand.panels, edge(operand.panels, slabs.count, threads), 1);
  }
  // Of the sums that wait for others.
  int64_t held_floats(const ProductKernel& kernel, int64_t tiles) const {
    return slabs.count == 1 ? 0 : tiles * slabs.count * tile_floats(kernel);
  }
  int64_t tile_floats(const ProductKernel& kernel) const {
    return columns.piece * columns.piece * kernel.rows * kernel.cols;
  }
};

}  // namespace

int64_t CpuBackend::gram_scratch_words(const OpCall& call) const {
  const int64_t n = call.sizes[1];
  const ConstMatrixView like(nullptr, call.dtype, 0, 0);
  const ProductKernel& kernel = columns_kernel(like, like);
  const bool is_cross = call.op == "add_cross_gram";
  const int64_t tokens = std::min(call.sizes[0], tokens_at_once(kernel, n));
  int64_t words = 0;
  if (kernel.by_steps) {
    const StepPanels operand(kernel, tokens, n);
    const StepCut cut(operand, pool_.size());
    const int64_t tiles =
        is_cross ? cut.columns.count * cut.columns.count : cut.columns.count * (cut.columns.count + 1) / 2;
    words = 2 * operand.size() + cut.held_floats(kernel, tiles);
  } else {
    words = (is_cross ? 2 : 1) * rounded_up(n, kernel.cols) * kernel.words_of(tokens);
  }
  if (is_cross || !is_packable(kernel, call.dtype)) words += 2 * tokens * n / kernel.word;
  return words;
}

void CpuBackend::pack_columns(const ProductKernel& kernel, ConstMatrixView x, int64_t words, int64_t width,
                              uint32_t* panel) const {
  if (kernel.word == 2)
    products_.take_column_pairs(x.row<uint16_t>(0), x.stride, x.rows, x.cols, words, width, panel);
  else
    products_.take_columns(x.row<uint32_t>(0), x.stride, x.rows, x.cols, words, width, panel);
}

bool CpuBackend::add_column_products(ConstMatrixView left, ConstMatrixView right, bool only_lower, MatrixView c) {
  const ProductKernel& kernel = columns_kernel(left, right);
  if (kernel.by_steps) return add_column_products_by_steps(left, right, only_lower, c);
  const int64_t n = c.rows, words = kernel.words_of(left.rows), width = kernel.cols;
  const int64_t packed_words = rounded_up(n, width) * words;
  const bool is_same = left.data == right.data;
  ScratchPool::Lease lease = scratch_.borrow((is_same ? 1 : 2) * packed_words, 2);
  auto* const right_packed = reinterpret_cast<uint32_t*>(lease.take(packed_words));
  auto* const left_packed = is_same ? right_packed : reinterpret_cast<uint32_t*>(lease.take(packed_words));

  // A task packs some tokens for all panels: it reads whole rows, and looks at them first, which fetches them into the
  // cache too.
  constexpr int64_t kWords = 32;
  std::atomic<bool> are_finite = true;
  pool_.for_each(pieces_of(words, kWords), [&](int64_t task) {
    const int64_t first = task * kWords, count = std::min(kWords, words - first);
    const int64_t token = std::min(first * kernel.word, left.rows),
                  tokens = std::min(kWords * kernel.word, left.rows - token);
    for (int64_t row = token; is_same && row < token + tokens; ++row) {
      if (!is_finite(right, row)) are_finite = false;
    }
    if (!are_finite) return;
    for (int64_t col = 0; col < n; col += width) {
      const auto pack = [&](ConstMatrixView x, uint32_t* packed) {
        pack_columns(kernel, x.block(token, tokens, col, std::min(width, n - col)), count, width,
                     packed + col * words + first * width);
      };
      pack(right, right_packed);
      if (!is_same) pack(left, left_packed);
    }
  });
  if (!are_finite) return false;

  const Cut stretch = stretches(kernel, words);
  // A task's panels of a stretch stay in the second cache; with smaller tasks, threads end together.
  int64_t edge = 192;
  while (pool_.size() > 1 && edge > 48 && pieces_of(n, edge) * pieces_of(n, edge) / 2 < 8 * pool_.size()) edge /= 2;
  const Cut rows(n, edge, kernel.rows), cols(n, edge, kernel.cols);
  const std::vector<TileIndex> tiles = tiles_of(rows, cols, only_lower);
  pool_.for_each(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[static_cast<size_t>(task)];
    const int64_t row_end = rows.start(i) + rows.length(i), col_end = cols.start(j) + cols.length(j);
    ScratchPool::Lease room = scratch_.borrow(kernel.rows * kernel.cols);
    float* border = room.take(kernel.rows * kernel.cols);
    for (int64_t s = 0; s < stretch.count; ++s) {
      for (int64_t col = cols.start(j); col < col_end; col += kernel.cols) {
        for (int64_t row = rows.start(i); row < row_end; row += kernel.rows) {
          if (only_lower && col >= row + kernel.rows) continue;
          // Of a tile on the diagonal, the registers that reach below it.
          const int64_t wanted = only_lower ? std::min(kernel.cols, row + kernel.rows - col) : kernel.cols;
          const bool is_whole = row + kernel.rows <= n && col + kernel.cols <= n;
          const uint32_t* a = left_packed + row / width * width * words + stretch.start(s) * width + row % width;
          const uint32_t* b = right_packed + col * words + stretch.start(s) * kernel.cols;
          float* to = c.row<float>(row) + col;
          // A panel's tiles of rows fetch the next panel together, each its part.
          const uint32_t* const next = left_packed + (row / width + 1) * width * words + stretch.start(s) * width +
                                       row % width * stretch.length(s);
          kernel.multiply_first(wanted)({.words = stretch.length(s),
                                         .left = a,
                                         .row_stride = kernel.step,
                                         .step_stride = width,
                                         .right = b,
                                         .soon = PanelProduct::dense(next, kernel.rows)},
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
bool CpuBackend::pack_columns_by_steps(const ProductKernel& kernel, ConstMatrixView x, uint32_t* left,
                                       uint32_t* right) {
  const StepPanels to(kernel, x.rows, x.cols);
  const int64_t width = kernel.cols, step_tokens = kernel.step * kernel.word, step_words = kernel.step * width;
  std::atomic<bool> are_finite = true;
  pool_.for_each(to.stretches(), [&](int64_t stretch) {
    bool is_finite = true;
    for (int64_t first = 0; first < to.tokens_of(stretch); first += step_tokens) {
      const int64_t token = stretch * StepPanels::kTokens + first, tokens = std::min(step_tokens, x.rows - token);
      for (int64_t panel = 0; panel < to.panels; ++panel) {
        const int64_t col = panel * width, place = to.place(stretch, panel) + first / step_tokens * step_words;
        is_finite &= products_.take_column_step(x.row<uint16_t>(token) + col, x.stride, tokens,
                                                std::min(width, x.cols - col), left == nullptr ? nullptr : left + place,
                                                right == nullptr ? nullptr : right + place);
      }
    }
    if (!is_finite) are_finite = false;
  });
  return are_finite;
}

// A task sums a tile of c in its core's cache.
bool CpuBackend::add_column_products_by_steps(ConstMatrixView left, ConstMatrixView right, bool only_lower,
                                              MatrixView c) {
  const ProductKernel& kernel = columns_kernel(left, right);
  const int64_t n = c.rows, width = kernel.cols, step_words = kernel.step * width;
  const StepPanels operand(kernel, left.rows, n);
  const StepCut cut(operand, pool_.size());
  const std::vector<TileIndex> tiles = tiles_of(cut.columns, cut.columns, only_lower);
  const int64_t slabs = cut.slabs.count, block_floats = width * width, tile_floats = cut.tile_floats(kernel);
  const int64_t held = cut.held_floats(kernel, std::ssize(tiles));
  ScratchPool::Lease lease = scratch_.borrow(2 * operand.size() + held, 3);
  auto* const left_packed = reinterpret_cast<uint32_t*>(lease.take(operand.size()));
  auto* const right_packed = reinterpret_cast<uint32_t*>(lease.take(operand.size()));
  float* const held_sums = lease.take(held);
  if (left.data == right.data) {
    if (!pack_columns_by_steps(kernel, right, left_packed, right_packed)) return false;
  } else {
    pack_columns_by_steps(kernel, left, left_packed, nullptr);
    pack_columns_by_steps(kernel, right, nullptr, right_packed);
  }

  // Calls body(i, j, the block's place in a tile's sums) for panels of rows and columns that meet in c.
  const auto for_blocks = [&](TileIndex tile, const auto& body) {
    const int64_t row = cut.columns.start(tile.row), col = cut.columns.start(tile.col);
    for (int64_t j = 0; j < cut.columns.length(tile.col); ++j) {
      for (int64_t i = 0; i < cut.columns.length(tile.row); ++i) {
        if (!only_lower || col + j <= row + i) body(row + i, col + j, (j * cut.columns.piece + i) * block_floats);
      }
    }
  };
  const auto add_to_c = [&](TileIndex tile, const float* sums) {
    for_blocks(tile, [&](int64_t i, int64_t j, int64_t place) {
      products_.add_column_tile(sums + place, std::min(width, n - i * width), std::min(width, n - j * width),
                                c.row<float>(i * width) + j * width, c.stride);
    });
  };
  pool_.for_each(std::ssize(tiles) * slabs, [&](int64_t task) {
    const TileIndex tile = tiles[static_cast<size_t>(task / slabs)];
    const int64_t slab = task % slabs, first = cut.slabs.start(slab), end = first + cut.slabs.length(slab);
    ScratchPool::Lease room = scratch_.borrow(slabs == 1 ? tile_floats : 0);
    float* const sums = slabs == 1 ? room.take(tile_floats) : held_sums + task * tile_floats;
    const int64_t rows = cut.columns.length(tile.row), cols = cut.columns.length(tile.col);
    int64_t blocks = 0;
    for_blocks(tile, [&](int64_t, int64_t, int64_t) { ++blocks; });
    products_.begin();
    for (int64_t stretch = first; stretch < end; ++stretch) {
      // The next stretch's panels, first those of rows, are fetched bit by bit.
      const int64_t next = std::min(stretch + 1, end - 1), steps = operand.words_of(next) / kernel.step,
                    lines_ahead = pieces_of((rows + cols) * width, blocks),
                    words_ahead = lines_ahead * steps * PanelProduct::kLineWords;
      const uint32_t* const next_left = left_packed + operand.place(next, cut.columns.start(tile.row));
      const uint32_t* const next_right = right_packed + operand.place(next, cut.columns.start(tile.col));
      int64_t block = 0;
      for_blocks(tile, [&](int64_t i, int64_t j, int64_t place) {
        const int64_t ahead = block++ * words_ahead, of_right = ahead - rows * operand.words_of(next) * width;
        kernel.multiply(
            {.words = operand.words_of(stretch),
             .left = left_packed + operand.place(stretch, i),
             .row_stride = kernel.step,
             .step_stride = step_words,
             .right = right_packed + operand.place(stretch, j),
             .later = PanelProduct::dense(of_right < 0 ? next_left + ahead : next_right + of_right, lines_ahead)},
            sums + place, width, stretch > first);
      });
    }
    products_.end();
    if (slabs == 1) add_to_c(tile, sums);
  });
  if (slabs == 1) return true;
  pool_.for_each(std::ssize(tiles), [&](int64_t task) {
    for (int64_t slab = 0; slab < slabs; ++slab)
      add_to_c(tiles[static_cast<size_t>(task)], held_sums + (task * slabs + slab) * tile_floats);
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
        std::memcpy(to, words_at(part, row), static_cast<size_t>(row_bytes(part)));
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
