// Matrix products: operands are packed into panels, then tasks multiply panels into tiles of the result. A sum is taken
// over stretches of the inner dimension whose length depends on the kernel alone, in order: how the result is cut into
// tasks never changes it.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cut.h"

namespace gptq {
namespace {

// Packed at a time, for all tasks to share: of weights, and of both operands of a Hessian.
constexpr int64_t kPackedWords = int64_t{4} << 20, kPackedGramWords = int64_t{8} << 20;

int64_t panels_of(int64_t size, int64_t width) { return (size + width - 1) / width; }

int64_t row_bytes(ConstMatrixView m) { return m.cols * static_cast<int64_t>(size_of(m.dtype)); }
int64_t stride_bytes(ConstMatrixView m) { return m.stride * static_cast<int64_t>(size_of(m.dtype)); }

const uint32_t* words_at(ConstMatrixView m, int64_t row) {
  return reinterpret_cast<const uint32_t*>(static_cast<const std::byte*>(m.data) + row * stride_bytes(m));
}

// Words from one row of a left panel to the next: off the multiples of 2 kB, which share the sets of a cache.
int64_t padded_stride(int64_t words) { return words % 512 == 0 ? words + 16 : words; }

// Tokens of a Hessian's inputs that are packed, and copied if need be, at a time.
int64_t gram_tokens(const ProductKernel& kernel, int64_t n) {
  const int64_t unit = 1024 * kernel.word;
  return std::max<int64_t>(1, kPackedGramWords / (2048 * n)) * unit;
}

// The stretches of an inner dimension that are summed one after the other.
Cut stretches(const ProductKernel& kernel, int64_t words) { return {words, kernel.most_words, kernel.step}; }

}  // namespace

int64_t CpuBackend::scratch_bytes(const OpCall& call) const {
  const auto [a, b, c, d] = call.sizes;
  const ConstMatrixView like(nullptr, call.dtype, 0, 0);
  const ProductKernel& kernel = product_kernel(like, like);
  const auto panels = [&](int64_t n, int64_t inner) {
    return panels_of(n, kernel.cols) * kernel.cols * kernel.words_of(inner);
  };
  int64_t words = 0;
  if (call.op == "linear") {
    words = std::min(panels(b, c), std::max(kPackedWords, panels(1, c)));
  } else if (call.op == "attention") {
    words = panels_of(a, std::max<int64_t>(d, 1)) * b * (panels(d, c) + panels(c, d));
  } else if (call.op == "add_gram" || call.op == "add_cross_gram") {
    const int64_t tokens = std::min(a, gram_tokens(kernel, b));
    words = panels(b, tokens) + panels_of(b, kernel.rows) * kernel.rows * padded_stride(kernel.words_of(tokens));
    if (call.op == "add_cross_gram" || !is_packable(kernel, call.dtype)) words += 2 * tokens * b / kernel.word;
  }
  return words * static_cast<int64_t>(sizeof(uint32_t));
}

const ProductKernel& CpuBackend::product_kernel(ConstMatrixView a, ConstMatrixView b) const {
  const bool has_pairs = products_.bf16.multiply != nullptr && a.dtype == DType::bf16 && b.dtype == DType::bf16;
  return has_pairs ? products_.bf16 : products_.f32;
}

ConstMatrixView CpuBackend::wide_rows(ConstMatrixView x, float* wide) const {
  for (int64_t r = 0; r < x.rows; ++r) as_f32(x, r, wide + r * x.cols);
  return {wide, DType::f32, x.rows, x.cols};
}

void CpuBackend::pack_right(const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel) {
  const int64_t words = kernel.words_of(w.cols);
  ScratchPool::Lease lease = scratch_.borrow(w.size());
  if (!is_packable(kernel, w.dtype)) w = wide_rows(w, lease.take(w.size()));
  products_.interleave(w.data, stride_bytes(w), w.rows, row_bytes(w), words, kernel.cols, panel, kernel.cols);
}

CpuBackend::LeftPanels CpuBackend::pack_left(const ProductKernel& kernel, ConstMatrixView x, uint32_t* room) const {
  const int64_t words = kernel.words_of(x.cols), stride = padded_stride(words);
  const bool is_whole = is_packable(kernel, x.dtype) && row_bytes(x) == 4 * words && x.rows % kernel.rows == 0;
  if (is_whole && stride_bytes(x) % 4 == 0 && stride_bytes(x) % 2048 != 0)
    return {words_at(x, 0), stride_bytes(x) / 4, 1, kernel.rows * stride_bytes(x) / 4};
  const int64_t rows = panels_of(x.rows, kernel.rows) * kernel.rows;
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t* to = room + r * stride;
    int64_t filled = 0;
    if (r < x.rows) {
      filled = row_bytes(x);
      if (is_packable(kernel, x.dtype)) {
        std::memcpy(to, words_at(x, r), static_cast<size_t>(filled));
      } else {
        as_f32(x, r, reinterpret_cast<float*>(to));
        filled = 4 * x.cols;
      }
    }
    std::memset(reinterpret_cast<std::byte*>(to) + filled, 0, static_cast<size_t>(4 * words - filled));
  }
  return {room, stride, 1, kernel.rows * stride};
}

int64_t CpuBackend::left_room(const ProductKernel& kernel, ConstMatrixView x) {
  return panels_of(x.rows, kernel.rows) * kernel.rows * padded_stride(kernel.words_of(x.cols));
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
  const int64_t panels = panels_of(y.cols, kernel.cols), tiles = panels_of(y.rows, kernel.rows),
                tile_size = kernel.rows * kernel.cols;
  // Tiles that cannot be summed where they belong: all of them if the sum is interrupted, else one.
  const bool is_interrupted = cut.count > 1;
  ScratchPool::Lease lease = scratch_.borrow(tile_size * (is_interrupted ? tiles * panels : 1));
  float* const room = lease.take(tile_size * (is_interrupted ? tiles * panels : 1));
  for (int64_t stretch = 0; stretch < std::max<int64_t>(cut.count, 1); ++stretch) {
    const int64_t first = cut.start(stretch), count = std::max<int64_t>(cut.length(stretch), 0);
    const bool is_last = stretch + 1 >= cut.count;
    for (int64_t j = 0; j < panels; ++j) {
      const int64_t col = j * kernel.cols, cols = std::min(kernel.cols, y.cols - col);
      const uint32_t* columns = right + (j * words + first) * kernel.cols;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t row = i * kernel.rows, rows = std::min(kernel.rows, y.rows - row);
        const bool in_place = y.dtype == DType::f32 && rows == kernel.rows && cols == kernel.cols;
        float* c = in_place ? y.row<float>(row) + col : room + (is_interrupted ? (i * panels + j) * tile_size : 0);
        const int64_t c_stride = in_place ? y.stride : kernel.cols;
        kernel.multiply(count, left.data + i * left.panel_stride + first * left.word_stride, left.row_stride,
                        left.word_stride, columns, c, c_stride, stretch > 0);
        if (is_last) finish_tile(c, c_stride, bias == nullptr ? nullptr : bias + col, y.block(row, rows, col, cols));
      }
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
    const int64_t n = std::min(at_once * kernel.cols, y.cols - first), panels = panels_of(n, kernel.cols);
    ScratchPool::Lease lease = scratch_.borrow(panels * panel_words);
    auto* packed = reinterpret_cast<uint32_t*>(lease.take(panels * panel_words));
    pool_.for_each(panels, [&](int64_t panel) {
      const int64_t row = panel * kernel.cols;
      pack_right(kernel, w.row_range(first + row, std::min(kernel.cols, n - row)), packed + panel * panel_words);
    });
    const TileShape shape = tile_shape(y.rows, n, kernel);
    const Cut rows(y.rows, shape.rows, kernel.rows), cols(n, shape.cols, kernel.cols);
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

// Left panels are 128 rows or so: then both they and a right panel stay in the cache of a core. Smaller ones, and a cut
// across the columns, where there would be too few tasks to share.
CpuBackend::TileShape CpuBackend::tile_shape(int64_t m, int64_t n, const ProductKernel& kernel) const {
  const int64_t wanted = pool_.size() == 1 ? 1 : 4 * pool_.size();
  TileShape shape{std::max<int64_t>(128 / kernel.rows, 1) * kernel.rows, n};
  const auto tasks = [&] { return panels_of(m, shape.rows) * panels_of(n, shape.cols); };
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

// As they come, or turned into rows where the kernel wants those.
void CpuBackend::pack_left_columns(const ProductKernel& kernel, ConstMatrixView x, int64_t words, uint32_t* panel) {
  if (!kernel.only_rows) return pack_columns(kernel, x, words, kernel.rows, panel);
  ScratchPool::Lease lease = scratch_.borrow(words * kernel.rows);
  auto* columns = reinterpret_cast<uint32_t*>(lease.take(words * kernel.rows));
  pack_columns(kernel, x, words, kernel.rows, columns);
  products_.interleave(columns, 4 * kernel.rows, words, 4 * kernel.rows, kernel.rows, words, panel,
                       padded_stride(words));
}

// c += left' right, or of its tiles those that reach the lower triangle.
void CpuBackend::add_column_products(ConstMatrixView left, ConstMatrixView right, bool only_lower, MatrixView c) {
  const ProductKernel& kernel = product_kernel(left, right);
  const int64_t n = c.rows, words = kernel.words_of(left.rows);
  const int64_t left_words = kernel.rows * (kernel.only_rows ? padded_stride(words) : words),
                right_words = kernel.cols * words;
  const int64_t left_panels = panels_of(n, kernel.rows), right_panels = panels_of(n, kernel.cols);
  ScratchPool::Lease lease = scratch_.borrow(left_panels * left_words + right_panels * right_words, 2);
  auto* left_packed = reinterpret_cast<uint32_t*>(lease.take(left_panels * left_words));
  auto* right_packed = reinterpret_cast<uint32_t*>(lease.take(right_panels * right_words));
  pool_.for_each(left_panels + right_panels, [&](int64_t task) {
    if (task < left_panels) {
      const int64_t col = task * kernel.rows;
      const ConstMatrixView part = left.col_range(col, std::min(kernel.rows, n - col));
      return pack_left_columns(kernel, part, words, left_packed + task * left_words);
    }
    const int64_t panel = task - left_panels, col = panel * kernel.cols;
    pack_columns(kernel, right.col_range(col, std::min(kernel.cols, n - col)), words, kernel.cols,
                 right_packed + panel * right_words);
  });

  const int64_t row_stride = kernel.only_rows ? padded_stride(words) : 1,
                word_stride = kernel.only_rows ? 1 : kernel.rows;
  const Cut stretch = stretches(kernel, words), rows(n, 96, kernel.rows), cols(n, 192, kernel.cols);
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t i = 0; i < rows.count; ++i) {
    for (int64_t j = 0; j < cols.count; ++j) {
      if (!only_lower || cols.start(j) < rows.start(i) + rows.length(i)) tiles.emplace_back(i, j);
    }
  }
  pool_.for_each(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[static_cast<size_t>(task)];
    const int64_t row_end = rows.start(i) + rows.length(i), col_end = cols.start(j) + cols.length(j);
    ScratchPool::Lease room = scratch_.borrow(kernel.rows * kernel.cols);
    float* edge = room.take(kernel.rows * kernel.cols);
    products_.begin();
    for (int64_t s = 0; s < stretch.count; ++s) {
      for (int64_t col = cols.start(j); col < col_end; col += kernel.cols) {
        for (int64_t row = rows.start(i); row < row_end; row += kernel.rows) {
          if (only_lower && col >= row + kernel.rows) continue;
          const bool is_whole = row + kernel.rows <= n && col + kernel.cols <= n;
          const uint32_t* a = left_packed + row / kernel.rows * left_words + stretch.start(s) * word_stride;
          const uint32_t* b = right_packed + col / kernel.cols * right_words + stretch.start(s) * kernel.cols;
          float* to = c.row<float>(row) + col;
          kernel.multiply(stretch.length(s), a, row_stride, word_stride, b, is_whole ? to : edge,
                          is_whole ? c.stride : kernel.cols, is_whole);
          if (is_whole) continue;
          for (int64_t r = 0; r < std::min(kernel.rows, n - row); ++r)
            kernels_.add(edge + r * kernel.cols, 1, to + r * c.stride, std::min(kernel.cols, n - col));
        }
      }
    }
    products_.end();
  });
}

void CpuBackend::add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) {
  if (x.empty()) return;
  std::vector<uint8_t> finite(static_cast<size_t>(x.rows));
  for_rows(x.rows, x.cols, 1, [&](int64_t row, float* scratch) {
    finite[static_cast<size_t>(row)] = kernels_.all_finite(as_f32(x, row, scratch), x.cols) ? 1 : 0;
  });
  std::vector<int64_t> kept;
  for (int64_t row = 0; row < x.rows; ++row) {
    if (finite[static_cast<size_t>(row)] != 0) kept.push_back(row);
  }
  const auto count = static_cast<int64_t>(kept.size());
  dropped.row<int32_t>(0)[0] += static_cast<int32_t>(x.rows - count);
  const bool as_it_is = is_packable(product_kernel(x, x), x.dtype);
  const int64_t at_once = gram_tokens(product_kernel(x, x), x.cols);
  for (int64_t start = 0; start < count; start += at_once) {
    const int64_t tokens = std::min(at_once, count - start);
    if (as_it_is && count == x.rows) {
      const ConstMatrixView part = x.row_range(start, tokens);
      add_column_products(part, part, true, h);
      continue;
    }
    Matrix copy(host_memory(), as_it_is ? x.dtype : DType::f32, tokens, x.cols);
    for_rows(tokens, x.cols, 0, [&](int64_t row, float*) {
      const ConstMatrixView from = x.row_range(kept[static_cast<size_t>(start + row)], 1);
      if (as_it_is)
        std::memcpy(copy.view().row_range(row, 1).data, from.data, static_cast<size_t>(row_bytes(from)));
      else
        as_f32(from, 0, copy.row<float>(row));
    });
    add_column_products(copy, copy, true, h);
  }
}

// Rows that are finite in both are copied together with their differences, a few thousand at a time; others are zeros.
void CpuBackend::add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) {
  if (x.empty()) return;
  constexpr int64_t kTokens = 2048;
  const int64_t n = x.cols;
  const DType dtype = is_packable(product_kernel(x, x), x.dtype) ? x.dtype : DType::f32;
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
