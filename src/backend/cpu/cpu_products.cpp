// Matrix products: operands are packed into panels, then tasks multiply panels into tiles of the result. A sum is taken
// over stretches of the inner dimension whose length depends on the kernel alone, in order: how the result is cut into
// tasks never changes it.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cut.h"

namespace gptq {
namespace {

// Packed at a time, for all tasks to share: of weights, and of both operands of a Hessian.
constexpr int64_t kPackedWords = int64_t{4} << 20, kPackedGramWords = int64_t{8} << 20;

// A step of tile registers is a cache line.
constexpr int64_t kStepWords = 16;

int64_t row_bytes(ConstMatrixView m) { return m.cols * static_cast<int64_t>(size_of(m.dtype)); }
int64_t stride_bytes(ConstMatrixView m) { return m.stride * static_cast<int64_t>(size_of(m.dtype)); }

const uint32_t* words_at(ConstMatrixView m, int64_t row) {
  return reinterpret_cast<const uint32_t*>(static_cast<const std::byte*>(m.data) + row * stride_bytes(m));
}

bool are_bf16(ConstMatrixView a, ConstMatrixView b) { return a.dtype == DType::bf16 && b.dtype == DType::bf16; }

// Words from one row of a left panel to the next: off the multiples of 2 kB, which share the sets of a cache.
int64_t padded_stride(int64_t words) { return words % 512 == 0 ? words + 16 : words; }

// Tokens of a Hessian's inputs that are packed, and copied if need be, at a time.
int64_t gram_tokens(const ProductKernel& kernel, int64_t n) {
  if (kernel.by_steps) return 8192;  // whose packed operands never lie in memory
  const int64_t unit = 1024 * kernel.word;
  return std::max<int64_t>(1, kPackedGramWords / (2048 * n)) * unit;
}

// The stretches of an inner dimension that are summed one after the other.
Cut stretches(const ProductKernel& kernel, int64_t words) { return {words, kernel.most_words, kernel.step}; }

struct TileIndex {
  int64_t row, col;
};

// All tiles, or those that reach the lower triangle.
std::vector<TileIndex> tiles_of(const Cut& rows, const Cut& cols, bool only_lower) {
  std::vector<TileIndex> tiles;
  for (int64_t i = 0; i < rows.count; ++i) {
    for (int64_t j = 0; j < cols.count; ++j) {
      if (!only_lower || cols.start(j) < rows.start(i) + rows.length(i)) tiles.push_back({i, j});
    }
  }
  return tiles;
}

// How a product of columns is cut into tasks where operands are packed by steps: tiles of c times slabs of tokens.
struct SlabCut {
  static constexpr int64_t kTokens = 512;  // packed at a time
  static constexpr int64_t kTasks = 48;    // wanted at least
  static constexpr int64_t kHeld = 128;    // tasks whose sums are held, or so
  Cut columns, slabs;
  SlabCut(const ProductKernel& kernel, int64_t tokens, int64_t n)
      : columns(n, 384, kernel.cols),
        slabs(tokens, std::max(kTokens, pieces_of(tokens, pieces_of(kTasks, tiles(true)))), kTokens) {}
  int64_t tiles(bool only_lower) const {
    return columns.count * (only_lower ? columns.count + 1 : 2 * columns.count) / 2;
  }
  int64_t tiles_at_once(bool only_lower) const { return std::min(tiles(only_lower), pieces_of(kHeld, slabs.count)); }
  int64_t tile_floats() const { return columns.piece * columns.piece; }
  // Of the sums that are held.
  int64_t floats(bool only_lower) const { return tiles_at_once(only_lower) * slabs.count * tile_floats(); }
};

}  // namespace

int64_t CpuBackend::scratch_bytes(const OpCall& call) const {
  const auto [a, b, c, d] = call.sizes;
  const ConstMatrixView like(nullptr, call.dtype, 0, 0);
  const ProductKernel& kernel = product_kernel(like, like);
  const auto panels = [&](int64_t n, int64_t inner) {
    return pieces_of(n, kernel.cols) * kernel.cols * kernel.words_of(inner);
  };
  int64_t words = 0;
  if (call.op == "linear") {
    words = std::min(panels(b, c), std::max(kPackedWords, panels(1, c)));
  } else if (call.op == "attention") {
    words = pieces_of(a, std::max<int64_t>(d, 1)) * b * (panels(d, c) + panels(c, d));
  } else if (call.op == "add_gram" || call.op == "add_cross_gram") {
    const ProductKernel& columns = columns_kernel(like, like);
    const bool is_cross = call.op == "add_cross_gram";
    const int64_t tokens = std::min(a, gram_tokens(columns, b));
    if (columns.by_steps) {
      words = SlabCut(columns, tokens, b).floats(!is_cross);
    } else {
      words = (is_cross ? 2 : 1) * rounded_up(b, columns.cols) * columns.words_of(tokens);
    }
    if (is_cross || !is_packable(columns, call.dtype)) words += 2 * tokens * b / columns.word;
  }
  return words * static_cast<int64_t>(sizeof(uint32_t));
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

void CpuBackend::pack_row(const ProductKernel& kernel, ConstMatrixView x, int64_t row, int64_t words,
                          uint32_t* to) const {
  const MatrixView copy(to, dtype_of(kernel), 1, x.cols);
  if (x.dtype == copy.dtype)
    std::memcpy(to, words_at(x, row), static_cast<size_t>(row_bytes(x)));
  else if (copy.dtype == DType::f32)
    as_f32(x, row, copy.row<float>(0));
  else
    finish_row(x.row<float>(row), copy, 0);
  std::memset(static_cast<std::byte*>(copy.data) + row_bytes(copy), 0,
              static_cast<size_t>(4 * words - row_bytes(copy)));
}

void CpuBackend::pack_right(const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel) {
  const int64_t words = kernel.words_of(w.cols);
  const bool is_narrow = !is_packable(kernel, w.dtype);
  ScratchPool::Lease lease = scratch_.borrow(is_narrow ? w.size() : 0);
  if (is_narrow) w = wide_rows(w, lease.take(w.size()));
  products_.interleave(w.data, stride_bytes(w), w.rows, row_bytes(w), words, kernel.cols, panel, kernel.cols);
}

CpuBackend::LeftPanels CpuBackend::pack_left(const ProductKernel& kernel, ConstMatrixView x, uint32_t* room) const {
  const int64_t words = kernel.words_of(x.cols), stride = padded_stride(words);
  const bool is_aligned = reinterpret_cast<uintptr_t>(x.data) % 4 == 0 && stride_bytes(x) % 4 == 0;
  const bool fills_words = is_packable(kernel, x.dtype) && row_bytes(x) == 4 * words && is_aligned;
  if (!kernel.by_steps) {
    if (fills_words && x.rows % kernel.rows == 0 && stride_bytes(x) % 2048 != 0)
      return {words_at(x, 0), stride_bytes(x) / 4, kernel.step, kernel.rows * stride_bytes(x) / 4};
    for (int64_t r = 0; r < x.rows; ++r) pack_row(kernel, x, r, words, room + r * stride);
    for (int64_t r = x.rows; r < rounded_up(x.rows, kernel.rows); ++r) std::fill_n(room + r * stride, words, 0U);
    return {room, stride, kernel.step, kernel.rows * stride};
  }
  uint32_t* const row = room + rounded_up(x.rows, kernel.rows) * words;  // behind the panels
  for (int64_t r = 0; r < rounded_up(x.rows, kernel.rows); ++r) {
    const uint32_t* from = row;
    if (r >= x.rows)
      std::fill_n(row, words, 0U);
    else if (fills_words)
      from = words_at(x, r);
    else
      pack_row(kernel, x, r, words, row);
    uint32_t* to = room + r / kernel.rows * kernel.rows * words + r % kernel.rows * kStepWords;
    for (int64_t k = 0; k < words; k += kStepWords)
      std::memcpy(to + k * kernel.rows, from + k, kStepWords * sizeof(uint32_t));
  }
  return {room, kStepWords, kStepWords * kernel.rows, kernel.rows * words};
}

int64_t CpuBackend::left_room(const ProductKernel& kernel, ConstMatrixView x) {
  return (rounded_up(x.rows, kernel.rows) + 1) * padded_stride(kernel.words_of(x.cols));
}

void CpuBackend::finish_tile(const float* c, int64_t c_stride, const float* bias, MatrixView y) const {
  if (y.dtype == DType::f32) {
    const bool is_there = y.row<float>(0) == c;
    if (!is_there || bias != nullptr)
      products_.finish_f32(c, c_stride, y.rows, y.cols, bias, y.row<float>(0), y.stride);
  } else if (y.dtype == DType::bf16) {
    products_.finish_bf16(c, c_stride, y.rows, y.cols, bias, y.row<uint16_t>(0), y.stride);
  } else {
    float row[64];
    for (int64_t r = 0; r < y.rows; ++r) {
      products_.finish_f32(c + r * c_stride, c_stride, 1, y.cols, bias, row, y.cols);
      finish_row(row, y, r);
    }
  }
}

void CpuBackend::multiply_panels(const ProductKernel& kernel, int64_t words, const LeftPanels& left,
                                 const uint32_t* right, const float* bias, MatrixView y) {
  const Cut cut = stretches(kernel, words);
  const int64_t panels = pieces_of(y.cols, kernel.cols), tiles = pieces_of(y.rows, kernel.rows),
                tile_size = kernel.rows * kernel.cols;
  // Tiles that cannot be summed where they belong: all of some panels if the sum is interrupted, else one.
  const bool is_interrupted = cut.count > 1;
  const int64_t at_once = is_interrupted ? std::min<int64_t>(panels, 8) : panels;
  const int64_t room_size = tile_size * (is_interrupted ? tiles * at_once : 1);
  ScratchPool::Lease lease = scratch_.borrow(room_size);
  float* const room = lease.take(room_size);
  const auto multiply_stretch = [&](int64_t stretch, int64_t j) {
    const int64_t first = cut.start(stretch), count = std::max<int64_t>(cut.length(stretch), 0);
    const int64_t col = j * kernel.cols, cols = std::min(kernel.cols, y.cols - col);
    const uint32_t* columns = right + (j * words + first) * kernel.cols;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = i * kernel.rows, rows = std::min(kernel.rows, y.rows - row);
      const bool is_whole = rows == kernel.rows && cols == kernel.cols, in_place = is_whole && y.dtype == DType::f32;
      const bool is_last = stretch + 1 >= cut.count;
      float* c =
          in_place ? y.row<float>(row) + col : room + (is_interrupted ? (j % at_once * tiles + i) * tile_size : 0);
      const int64_t c_stride = in_place ? y.stride : kernel.cols;
      const float* biases = bias == nullptr ? nullptr : bias + col;
      const uint32_t* panel = left.data + i * left.panel_stride + first / kernel.step * left.step_stride;
      if (is_last && is_whole && y.dtype == DType::bf16 && kernel.multiply_to_bf16 != nullptr) {
        kernel.multiply_to_bf16(count, panel, left.row_stride, left.step_stride, columns, stretch > 0 ? c : nullptr,
                                c_stride, biases, y.row<uint16_t>(row) + col, y.stride);
        continue;
      }
      kernel.multiply(count, panel, left.row_stride, left.step_stride, columns, c, c_stride, stretch > 0);
      if (is_last) finish_tile(c, c_stride, biases, y.block(row, rows, col, cols));
    }
  };
  for (int64_t first = 0; first < panels; first += at_once) {
    for (int64_t stretch = 0; stretch < std::max<int64_t>(cut.count, 1); ++stretch) {
      for (int64_t j = first; j < std::min(panels, first + at_once); ++j) multiply_stretch(stretch, j);
    }
  }
}

void CpuBackend::linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) {
  if (y.empty()) return;
  const ProductKernel& kernel = product_kernel(x, w);
  const int64_t words = kernel.words_of(x.cols), panel_words = kernel.cols * words;
  const int64_t at_once = std::max<int64_t>(1, kPackedWords / std::max<int64_t>(panel_words, 1));
  const std::vector<float> biases = widened(bias);
  for (int64_t first = 0; first < y.cols; first += at_once * kernel.cols) {
    const int64_t n = std::min(at_once * kernel.cols, y.cols - first), panels = pieces_of(n, kernel.cols);
    ScratchPool::Lease lease = scratch_.borrow(panels * panel_words);
    auto* packed = reinterpret_cast<uint32_t*>(lease.take(panels * panel_words));
    const EvenCut packing(panels, 4 * pool_.size(), 1);
    pool_.for_each(packing.count, [&](int64_t task) {
      for (int64_t panel = packing.start(task); panel < packing.start(task + 1); ++panel) {
        const int64_t row = panel * kernel.cols;
        pack_right(kernel, w.row_range(first + row, std::min(kernel.cols, n - row)), packed + panel * panel_words);
      }
    });
    const TileShape shape = tile_shape(y.rows, n, kernel);
    const EvenCut rows(y.rows, rounded_up(pieces_of(y.rows, shape.rows), pool_.size()), kernel.rows);
    const Cut cols(n, shape.cols, kernel.cols);
    pool_.for_each(rows.count * cols.count, [&](int64_t task) {
      const int64_t i = task % rows.count, j = task / rows.count;
      const ConstMatrixView part = x.row_range(rows.start(i), rows.length(i));
      ScratchPool::Lease room = scratch_.borrow(left_room(kernel, part));
      const LeftPanels left = pack_left(kernel, part, reinterpret_cast<uint32_t*>(room.take(left_room(kernel, part))));
      const MatrixView to = y.block(rows.start(i), rows.length(i), first + cols.start(j), cols.length(j));
      products_.begin();
      multiply_panels(kernel, words, left, packed + cols.start(j) / kernel.cols * panel_words,
                      biases.empty() ? nullptr : biases.data() + first + cols.start(j), to);
      products_.end();
    });
  }
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
  constexpr int64_t kEdge = 48;  // of the part of c that is a task: small, so that threads end together
  const Cut rows(n, kEdge, kernel.rows), cols(n, kEdge, kernel.cols);
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
          kernel.multiply_first(wanted)(stretch.length(s), a, kernel.step, width, b, is_whole ? to : border,
                                        is_whole ? c.stride : kernel.cols, is_whole);
          if (is_whole) continue;
          for (int64_t r = 0; r < std::min(kernel.rows, n - row); ++r)
            kernels_.add(border + r * kernel.cols, 1, to + r * c.stride, std::min(wanted, n - col));
        }
      }
    }
  });
  return true;
}

// Tile registers multiply faster than memory brings packed operands. A task packs what it needs itself, a stretch at a
// time, and sums a large tile of c over a slab of tokens, all in its core's cache; the slabs of a tile are then added
// in order.
bool CpuBackend::add_column_products_by_steps(ConstMatrixView left, ConstMatrixView right, bool only_lower,
                                              MatrixView c) {
  const ProductKernel& kernel = columns_kernel(left, right);
  const int64_t n = c.rows, width = kernel.cols;
  const bool is_same = left.data == right.data;
  std::atomic<bool> are_finite = true;
  if (is_same) {
    for_rows(right.rows, n, 0, [&](int64_t row, float*) {
      if (!is_finite(right, row)) are_finite = false;
    });
  }
  if (!are_finite) return false;

  const SlabCut cut(kernel, left.rows, n);
  const std::vector<TileIndex> tiles = tiles_of(cut.columns, cut.columns, only_lower);
  const int64_t panels = cut.columns.piece / width, slabs = cut.slabs.count;
  const int64_t panel_words = SlabCut::kTokens / kernel.word * width, tile_size = width * width;
  const int64_t tiles_at_once = cut.tiles_at_once(only_lower);
  ScratchPool::Lease lease = scratch_.borrow(cut.floats(only_lower));
  float* const sums = lease.take(cut.floats(only_lower));
  for (int64_t first = 0; first < std::ssize(tiles); first += tiles_at_once) {
    const int64_t count = std::min(tiles_at_once, std::ssize(tiles) - first);
    // Whether a panel of rows and one of columns meet in c, or in its lower triangle.
    const auto is_wanted = [&](TileIndex tile, int64_t i, int64_t j) {
      const int64_t row = cut.columns.start(tile.row) + i * width, col = cut.columns.start(tile.col) + j * width;
      return row < n && col < n && (!only_lower || col <= row);
    };
    pool_.for_each(count * slabs, [&](int64_t task) {
      const TileIndex tile = tiles[static_cast<size_t>(first + task / slabs)];
      const int64_t slab = task % slabs, end = cut.slabs.start(slab) + cut.slabs.length(slab);
      float* const sum = sums + task * cut.tile_floats();
      ScratchPool::Lease room = scratch_.borrow((2 * panels + 1) * panel_words, 3);
      auto* const right_packed = reinterpret_cast<uint32_t*>(room.take(panels * panel_words));
      auto* const left_packed = reinterpret_cast<uint32_t*>(room.take(panels * panel_words));
      auto* const unturned = reinterpret_cast<uint32_t*>(room.take(panel_words));
      products_.begin();
      for (int64_t token = cut.slabs.start(slab); token < end; token += SlabCut::kTokens) {
        const int64_t tokens = std::min(SlabCut::kTokens, end - token), words = kernel.words_of(tokens);
        const auto take = [&](ConstMatrixView x, int64_t col, uint32_t* panel) {
          pack_columns(kernel, x.block(token, tokens, col, std::min(width, n - col)), words, width, panel);
        };
        for (int64_t panel = 0; panel < panels; ++panel) {
          const int64_t row = cut.columns.start(tile.row) + panel * width,
                        col = cut.columns.start(tile.col) + panel * width;
          uint32_t* const of_right = right_packed + panel * panel_words;
          if (col < n) take(right, col, of_right);
          if (row >= n) continue;
          const bool is_there = is_same && row == col;
          if (!is_there) take(left, row, unturned);
          const uint32_t* from = is_there ? of_right : unturned;
          for (int64_t k = 0; k < words * width; k += kernel.step * width) {
            products_.interleave(from + k, 4 * width, kernel.step, 4 * width, width, kernel.step,
                                 left_packed + panel * panel_words + k, kernel.step);
          }
        }
        for (int64_t j = 0; j < panels; ++j) {
          for (int64_t i = 0; i < panels; ++i) {
            if (!is_wanted(tile, i, j)) continue;
            kernel.multiply(words, left_packed + i * panel_words, kernel.step, kernel.step * width,
                            right_packed + j * panel_words, sum + (i * panels + j) * tile_size, width,
                            token > cut.slabs.start(slab));
          }
        }
      }
      products_.end();
    });
    pool_.for_each(count * panels, [&](int64_t task) {
      const TileIndex tile = tiles[static_cast<size_t>(first + task / panels)];
      const int64_t i = task % panels, row = cut.columns.start(tile.row) + i * width;
      for (int64_t j = 0; j < panels; ++j) {
        if (!is_wanted(tile, i, j)) continue;
        const int64_t col = cut.columns.start(tile.col) + j * width;
        for (int64_t slab = 0; slab < slabs; ++slab) {
          const float* from = sums + (task / panels * slabs + slab) * cut.tile_floats() + (i * panels + j) * tile_size;
          for (int64_t r = 0; r < std::min(width, n - row); ++r)
            kernels_.add(from + r * width, 1, c.row<float>(row + r) + col, std::min(width, n - col));
        }
      }
    });
  }
  return true;
}

// Tokens that are not finite become zeros in a copy; the usual input is never copied.
void CpuBackend::add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) {
  if (x.empty()) return;
  const ProductKernel& kernel = columns_kernel(x, x);
  const int64_t at_once = gram_tokens(kernel, x.cols);
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

// Of a tile's columns, the rows of F up to the diagonal are all that is packed and multiplied. Each task writes the
// sums of its rows over a stretch of columns, which are then added in order.
void CpuBackend::add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) {
  if (w.empty()) return;
  const ProductKernel& kernel = products_.multiply_bf16() ? products_.bf16 : products_.f32;
  const int64_t n = w.cols, words = kernel.words_of(n), panel_words = kernel.cols * words;
  const int64_t at_once = std::max<int64_t>(1, kPackedWords / panel_words);
  const Cut rows(w.rows, 128, kernel.rows), groups(n, std::min<int64_t>(256, at_once * kernel.cols), kernel.cols);
  const int64_t panels = groups.piece / kernel.cols;
  std::vector<float> sums(static_cast<size_t>(w.rows * groups.count));  // [rows, groups]
  const int64_t groups_at_once = std::max<int64_t>(1, at_once / panels);
  for (int64_t first = 0; first < groups.count; first += groups_at_once) {
    const int64_t count = std::min(groups_at_once, groups.count - first);
    ScratchPool::Lease lease = scratch_.borrow(count * panels * panel_words);
    auto* packed = reinterpret_cast<uint32_t*>(lease.take(count * panels * panel_words));
    const auto end_of = [&](int64_t panel) { return std::min(n, groups.start(first) + (panel + 1) * kernel.cols); };
    pool_.for_each(count * panels, [&](int64_t panel) {
      const int64_t start = groups.start(first) + panel * kernel.cols, size = kernel.words_of(end_of(panel));
      if (start >= n) return;
      ScratchPool::Lease room = scratch_.borrow(kernel.cols * size);
      auto* lower = reinterpret_cast<uint32_t*>(room.take(kernel.cols * size));
      for (int64_t row = start; row < end_of(panel); ++row)
        pack_row(kernel, factor.col_range(0, row + 1), row, size, lower + (row - start) * size);
      products_.interleave(lower, 4 * size, end_of(panel) - start, 4 * size, size, kernel.cols,
                           packed + panel * panel_words, kernel.cols);
    });
    pool_.for_each(rows.count * count, [&](int64_t task) {
      const int64_t i = task % rows.count, group = count - 1 - task / rows.count;  // the longest come first
      const ConstMatrixView part = w.row_range(rows.start(i), rows.length(i));
      const int64_t tile_size = kernel.rows * kernel.cols;
      ScratchPool::Lease room = scratch_.borrow(left_room(kernel, part) + tile_size, 2);
      const LeftPanels left = pack_left(kernel, part, reinterpret_cast<uint32_t*>(room.take(left_room(kernel, part))));
      float* tile = room.take(tile_size);
      products_.begin();
      for (int64_t panel = group * panels; panel < (group + 1) * panels; ++panel) {
        if (groups.start(first) + panel * kernel.cols >= n) break;
        const Cut cut = stretches(kernel, kernel.words_of(end_of(panel)));
        for (int64_t row = 0; row < part.rows; row += kernel.rows) {
          for (int64_t s = 0; s < cut.count; ++s) {
            kernel.multiply(
                cut.length(s),
                left.data + row / kernel.rows * left.panel_stride + cut.start(s) / kernel.step * left.step_stride,
                left.row_stride, left.step_stride, packed + panel * panel_words + cut.start(s) * kernel.cols, tile,
                kernel.cols, s > 0);
          }
          for (int64_t r = 0; r < std::min(kernel.rows, part.rows - row); ++r) {
            sums[static_cast<size_t>((rows.start(i) + row + r) * groups.count + first + group)] +=
                kernels_.sum_of_squares(tile + r * kernel.cols, kernel.cols);
          }
        }
      }
      products_.end();
    });
  }
  for (int64_t row = 0; row < w.rows; ++row) {
    const auto of_row =
        std::span(sums).subspan(static_cast<size_t>(row * groups.count), static_cast<size_t>(groups.count));
    norms.row<float>(row)[0] += std::accumulate(of_row.begin(), of_row.end(), 0.0F);
  }
}

// Rows that are finite in both are copied together with their differences, a few thousand at a time; others are zeros.
void CpuBackend::add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) {
  if (x.empty()) return;
  constexpr int64_t kTokens = 2048;
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
