// The micro-kernels of matrix products on a CPU: they multiply a packed A panel by a packed B panel into a tile of C
// that stays in registers. product_kernels.cpp is compiled once per instruction set, like kernels.cpp.
//
// A panel holds mr rows of A, or nr columns of B, over a k-block, padded with zeros. Its elements are dwords: an f32,
// or a k-pair, two bf16 that are neighbours along k, as the processors' bf16 dot products take them. A B panel is
// dense: for each dword of k its nr columns. An A panel has two strides, so that rows may be used where they lie.
#pragma once

#include <cstdint>

namespace gptq {

// A packed A panel times a packed B panel over `dwords` dwords of k. Dword k of row r of A is
// a[r * row_stride + k / step * step_stride + k % step], of column j of B it is b[k * nr + j]. Strides are in dwords.
// Where the kernel's step is 1, row kernels assume step_stride = 1, column kernels step_stride = nr.
struct PanelProduct {
  int64_t dwords = 0;
  const uint32_t* a = nullptr;
  int64_t row_stride = 0, step_stride = 0;
  const uint32_t* b = nullptr;
  // Panels of the next call, which some kernels prefetch: with each kLineDwords of k, `lines` cache lines that are
  // line_stride apart; step_stride from one such group to the next.
  static constexpr int64_t kLineDwords = 16;  // a cache line
  struct Prefetch {
    const uint32_t* data = nullptr;
    int64_t lines = 0, line_stride = kLineDwords, step_stride = kLineDwords;
  };
  static constexpr Prefetch dense(const uint32_t* data, int64_t lines) {
    return {.data = data, .lines = lines, .step_stride = lines * kLineDwords};
  }
  Prefetch prefetch_l1, prefetch_l2;  // AMX kernels use the second only: their tile loads fill L1
};

// One micro-kernel, for f32 or bf16.
struct ProductKernel {
  int64_t rows = 0, cols = 0;  // mr x nr: the tile of C
  int64_t k_per_dword = 1;     // 1 for f32, 2 for k-pairs of bf16
  int64_t step = 1;            // dwords of k that it takes at a time: panels are padded to a multiple
  bool tile_layout = false;    // A is best packed in the AMX tile layout: per step, its dwords of all rows
  int64_t kc = 0;              // the k-block in dwords that one call should get, chosen for the caches

  // c = a b, or c += a b where `accumulate`. Writes all of c [rows, cols].
  using Multiply = void (*)(const PanelProduct& product, float* c, int64_t c_stride, bool accumulate);
  Multiply multiply = nullptr;

  // c [rows, panels * cols] = a b for `panels` consecutive B panels.
  using MultiplyAcross = void (*)(const PanelProduct& product, int64_t panels, float* c, int64_t c_stride);
  MultiplyAcross multiply_across = nullptr;

  // narrow[i] computes the first (i + 1) * narrow_cols columns of c only; null where there are whole tiles only.
  Multiply narrow[6] = {};
  int64_t narrow_cols = 0;
  Multiply multiply_first(int64_t columns) const {
    return narrow[0] == nullptr || columns >= cols ? multiply : narrow[(columns - 1) / narrow_cols];
  }

  // Fused epilogue: y = bf16(a b + c + bias) for a whole tile; c and bias [cols] may be null. Null where fusing gains
  // nothing.
  using MultiplyToBf16 = void (*)(const PanelProduct& product, const float* c, int64_t c_stride, const float* bias,
                                  uint16_t* y, int64_t y_stride);
  MultiplyToBf16 multiply_to_bf16 = nullptr;

  // Dwords of k that `k` elements take, padded to whole steps.
  int64_t dwords_of(int64_t k) const { return (k + k_per_dword * step - 1) / (k_per_dword * step) * step; }
};

struct ProductKernels {
  ProductKernel f32, bf16;
  // For x' y, where k runs down the columns of both operands. nr is a multiple of mr, and an A panel is mr neighbouring
  // columns of a packed B panel: dword k of row r is a[k * nr + r], whatever the strides. In the AMX tile layout
  // pack_column_tiles() packs both operands.
  ProductKernel f32_columns, bf16_columns;
  // Whether the processor has bf16 dot products; without them the bf16 kernels are empty.
  bool multiply_bf16() const { return bf16.multiply != nullptr; }

  // Packs a B panel from an operand [n, k] whose rows run along k: y[k * y_stride + r] = dword k of row r. Rows are
  // row_bytes long; pads with zeros to `width` rows (a multiple of 16) and `dwords` dwords.
  void (*pack_rows)(const void* x, int64_t stride_bytes, int64_t rows, int64_t row_bytes, int64_t dwords, int64_t width,
                    uint32_t* y, int64_t y_stride);
  // Packs a B panel from an operand [k, n] whose columns run along k, f32 or k-pairs of bf16: y[k * width + c] = x[k,
  // c], or the pair x[2 k, c], x[2 k + 1, c]. Pads with zeros to `width` columns and `dwords` dwords.
  void (*pack_columns)(const uint32_t* x, int64_t stride, int64_t rows, int64_t cols, int64_t dwords, int64_t width,
                       uint32_t* y);
  void (*pack_column_pairs)(const uint16_t* x, int64_t stride, int64_t rows, int64_t cols, int64_t dwords,
                            int64_t width, uint32_t* y);

  // For kernels with the AMX tile layout: packs one step of an A panel, a B panel or both (either may be null) from
  // x [tokens, cols], at most one step by one panel, padded with zeros. The even columns come first:
  // b[k * width + c] = the pair x[2 k, col(c)], x[2 k + 1, col(c)] with col(c) = 2 c, or 2 c - width + 1 from
  // c = width / 2 on; a[c * step + k] is the same pair. Returns false if an element is not finite.
  bool (*pack_column_tiles)(const uint16_t* x, int64_t stride, int64_t tokens, int64_t cols, uint32_t* a, uint32_t* b);
  // c [rows, cols] += a tile of C from such panels, with its columns and rows back in order.
  void (*add_column_tile)(const float* sums, int64_t rows, int64_t cols, float* c, int64_t c_stride);

  // Epilogues: y = c + bias, bias [cols] or null, in f32 (y may be c) or rounded to bf16.   c, y [rows, cols]
  void (*epilogue_f32)(const float* c, int64_t c_stride, int64_t rows, int64_t cols, const float* bias, float* y,
                       int64_t stride);
  void (*epilogue_bf16)(const float* c, int64_t c_stride, int64_t rows, int64_t cols, const float* bias, uint16_t* y,
                        int64_t stride);

  // Around a thread's calls of `multiply`: configures its AMX tiles and releases them. In between vector instructions
  // flush results below 2^-126 to zero, as AMX does.
  void (*configure_tiles)();
  void (*release_tiles)();
};

}  // namespace gptq
