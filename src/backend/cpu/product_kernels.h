// The inner loops of matrix products on a CPU: operands packed into panels, and the tile of sums that two panels give.
// product_kernels.cpp is compiled once per instruction set, like kernels.cpp.
//
// A panel holds a few rows of the left operand, or columns of the right one, over the inner dimension, filled up with
// zeros. It is made of words of 32 bits: an f32 is a word, and so are two bf16 that are neighbours along the inner
// dimension, as the processors' dot products want them. A right panel lies word after word, its columns side by side.
// A left panel may lie in several ways, which two strides tell apart.
#pragma once

#include <cstdint>

namespace gptq {

// A left panel times a right one: of `words` words of the inner dimension. Word k of row r of the left panel is
// left[r * row_stride + k / step * step_stride + k % step], and of column j of the right one right[k * cols + j].
// Strides are in words. Where the step is 1, kernels of rows take step_stride to be 1, those of columns to be cols.
struct PanelProduct {
  int64_t words = 0;
  const uint32_t* left = nullptr;
  int64_t row_stride = 0, step_stride = 0;
  const uint32_t* right = nullptr;
  // What will be multiplied next, which kernels that gain by it fetch meanwhile: with each kLineWords words so many
  // cache lines, of rows that lie line_stride apart or one behind the other.
  static constexpr int64_t kLineWords = 16;
  struct Ahead {
    const uint32_t* data = nullptr;
    int64_t lines = 0, line_stride = kLineWords, step_stride = kLineWords;
  };
  static constexpr Ahead dense(const uint32_t* data, int64_t lines) {
    return {.data = data, .lines = lines, .step_stride = lines * kLineWords};
  }
  Ahead soon, later;  // to the first cache and to the second; tile registers load too much for the first
};

// The register block of one kernel, of f32 or bf16 products.
struct ProductKernel {
  int64_t rows = 0, cols = 0;  // of the tile of sums
  int64_t word = 1;            // elements of a word: 1 or 2
  int64_t step = 1;            // words taken at a time: the inner dimension is filled up to a multiple
  // Left panels are best packed step by step, the rows' words of a step together, as tile registers load them.
  bool by_steps = false;
  int64_t most_words = 0;  // of an inner dimension that one call should get, for the sake of the caches

  // c = left right', or c += left right' where `accumulate`, each a sum of its words' elements' products.
  // c [rows, cols] is written whole.
  using Multiply = void (*)(const PanelProduct& product, float* c, int64_t c_stride, bool accumulate);
  Multiply multiply = nullptr;

  // The same of `panels` right panels, one behind the other: c [rows, panels * cols] = left right'.
  using MultiplyAcross = void (*)(const PanelProduct& product, int64_t panels, float* c, int64_t c_stride);
  MultiplyAcross multiply_across = nullptr;

  // narrow[i]: of the first (i + 1) * narrow_cols columns of c alone; null where only whole tiles can be had.
  Multiply narrow[6] = {};
  int64_t narrow_cols = 0;
  Multiply multiply_first(int64_t columns) const {
    return narrow[0] == nullptr || columns >= cols ? multiply : narrow[(columns - 1) / narrow_cols];
  }

  // y = left right' + c + bias of a whole tile, rounded; c and bias [cols] may be null. None where it would gain
  // nothing.
  using MultiplyToBf16 = void (*)(const PanelProduct& product, const float* c, int64_t c_stride, const float* bias,
                                  uint16_t* y, int64_t y_stride);
  MultiplyToBf16 multiply_to_bf16 = nullptr;

  // The words of `elements`, filled up.
  int64_t words_of(int64_t elements) const { return (elements + word * step - 1) / (word * step) * step; }
};

struct ProductKernels {
  ProductKernel f32, bf16;
  // For products of columns, x' y, where both operands have to be turned into panels. Their cols are a multiple of
  // their rows, and a left panel is `rows` neighbouring columns of what would be a right one: word k of row r is
  // left[k * cols + r], whatever the strides. By steps, both are packed by take_column_step().
  ProductKernel f32_columns, bf16_columns;
  // Whether the processor has dot products of bf16; without them those kernels are none.
  bool multiply_bf16() const { return bf16.multiply != nullptr; }

  // Packs an operand whose rows run along the inner dimension: y[k * y_stride + r] = word k of row r. Rows are
  // row_bytes long; what is missing up to `width` rows (a multiple of 16) or `words` words is zeros.
  void (*interleave)(const void* x, int64_t stride_bytes, int64_t rows, int64_t row_bytes, int64_t words, int64_t width,
                     uint32_t* y, int64_t y_stride);
  // Packs an operand whose columns do, in words of f32 or of two bf16: y[k * width + c] = x[k, c], or the pair of
  // x[2 k, c] and x[2 k + 1, c]. What is missing up to `width` columns or `words` words is zeros.
  void (*take_columns)(const uint32_t* x, int64_t stride, int64_t rows, int64_t cols, int64_t words, int64_t width,
                       uint32_t* y);
  void (*take_column_pairs)(const uint16_t* x, int64_t stride, int64_t rows, int64_t cols, int64_t words, int64_t width,
                            uint32_t* y);

  // For kernels by steps: packs one step of a panel of columns, x [tokens, cols], both at most a step's and a panel's.
  // In a panel the even columns come first: right[k * width + c] = the pair of x[2 k, col(c)] and x[2 k + 1, col(c)],
  // with col(c) = 2 c, or 2 c - width + 1 from c = width / 2 on; left[c * step + k] the same. Either may be null; what
  // is missing is zeros. Returns false if not all elements are finite.
  bool (*take_column_step)(const uint16_t* x, int64_t stride, int64_t tokens, int64_t cols, uint32_t* left,
                           uint32_t* right);
  // c += a tile of sums of such panels.   c [rows, cols]
  void (*add_column_tile)(const float* sums, int64_t rows, int64_t cols, float* c, int64_t c_stride);

  // y = c + bias, bias [cols] or null, rounded to bf16 in the second.   c, y [rows, cols]; the first may be in place
  void (*finish_f32)(const float* c, int64_t c_stride, int64_t rows, int64_t cols, const float* bias, float* y,
                     int64_t stride);
  void (*finish_bf16)(const float* c, int64_t c_stride, int64_t rows, int64_t cols, const float* bias, uint16_t* y,
                      int64_t stride);

  // Around a thread's calls of `multiply`: sets up its tile registers, where results below 2^-126 become zeros in the
  // vector registers too, and gives them back.
  void (*begin)();
  void (*end)();
};

}  // namespace gptq
