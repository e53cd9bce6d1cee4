// Compiled once per instruction set, each copy in a namespace named by the macro GPTQ_ISA; see kernels.cpp.
#include "backend/cpu/product_kernels.h"

#include "backend/cpu/lanes.h"

namespace gptq {
namespace GPTQ_ISA {
namespace {

// A tile of C, rows x cols = mr x nr, that fills the registers.
template <int64_t rows, int64_t vectors>
struct Tile {
  static constexpr int64_t kRows = rows, kVectors = vectors, kCols = vectors * kLanes;
};
// RowsTile has A and B panels of its own; ColumnsTile takes its A panels out of packed B panels, so mr divides nr.
#if defined(__AVX512F__)
using RowsTile = Tile<12, 2>;
using ColumnsTile = Tile<8, 3>;
#elif defined(__AVX__)
using RowsTile = Tile<6, 2>;
using ColumnsTile = Tile<4, 3>;
#elif defined(__aarch64__)
using RowsTile = Tile<6, 4>;
using ColumnsTile = Tile<4, 6>;
#else
using RowsTile = Tile<3, 4>;
using ColumnsTile = Tile<4, 3>;
#endif

constexpr int64_t kLineDwords = PanelProduct::kLineDwords;

// With 8 lanes a dword of k has 12 FMAs instead of 24, so loop overhead and cache misses cost twice as much per FMA:
// these kernels prefetch the next panels and unroll k.
constexpr bool kPrefetches = kLanes <= 8;
constexpr int kUnroll = kLanes <= 8 ? 2 : 1;

// sum + a * b for one dword of k: an FMA, or a dot product of k-pairs.
struct Floats {
  [[gnu::always_inline]] static inline Lanes add_product(Lanes sum, uint32_t a, Dwords b) {
    return sum + bits_of<float>(a) * bits_of<Lanes>(b);
  }
};
// bf16 dot products of both instruction sets treat inputs below 2^-126 as zero.
#if defined(__AVX512BF16__)
struct Pairs {
  [[gnu::always_inline]] static inline Lanes add_product(Lanes sum, uint32_t a, Dwords b) {
    return _mm512_dpbf16_ps(sum, bits_of<__m512bh>(Dwords{} + a), bits_of<__m512bh>(b));
  }
};
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
struct Pairs {
  [[gnu::always_inline]] static inline Lanes add_product(Lanes sum, uint32_t a, Dwords b) {
    return vbfdotq_f32(sum, bits_of<bfloat16x8_t>(Dwords{} + a), bits_of<bfloat16x8_t>(b));
  }
};
#endif

// Prefetches the lines that belong to dwords [k, k + kLineDwords).
template <int locality>
[[gnu::always_inline]] inline void prefetch(const PanelProduct::Prefetch& ahead, int64_t k) {
  const uint32_t* line = ahead.data + k / kLineDwords * ahead.step_stride;
  for (int64_t i = 0; i < ahead.lines; ++i, line += ahead.line_stride) __builtin_prefetch(line, 0, locality);
}

// The micro-kernel. From one dword of k to the next, A advances by kStep and B by kWidth dwords. Calls
// epilogue(row, first column, sums) for each register of the tile.
template <typename Product, typename Tile, int64_t kStep, int64_t kWidth, typename Epilogue>
[[gnu::always_inline]] inline void multiply(const PanelProduct& product, const Epilogue& epilogue) {
  const auto [dwords, a, row_stride, step_stride, first_b, prefetch_l1, prefetch_l2] = product;
  const uint32_t* b = first_b;
  constexpr int64_t kRows = Tile::kRows, kVectors = Tile::kVectors;
  // Three rows share a pointer, as x86 addresses scale an index by 1 and 2; all rows where the stride is a constant.
  constexpr int64_t kGroup = kRows % 3 == 0 ? 3 : kRows;
  Lanes sums[kRows][kVectors] = {};
  const uint32_t* groups[kRows / kGroup];
  for (int64_t g = 0; g < kRows / kGroup; ++g) groups[g] = a + g * kGroup * row_stride;
  for (int64_t first = 0, end = dwords; first < dwords; first = end, end = dwords) {
    if constexpr (kPrefetches) {
      prefetch<3>(prefetch_l1, first);
      prefetch<2>(prefetch_l2, first);
      if (dwords > first + kLineDwords) end = first + kLineDwords;
    }
#pragma GCC unroll kUnroll
    for (int64_t k = first; k < end; ++k) {
      Dwords columns[kVectors];
#pragma GCC unroll 8
      for (int64_t v = 0; v < kVectors; ++v) columns[v] = load<Dwords>(b + v * kLanes);
#pragma GCC unroll 12
      for (int64_t r = 0; r < kRows; ++r) {
        const uint32_t dword = groups[r / kGroup][r % kGroup * row_stride];
#pragma GCC unroll 8
        for (int64_t v = 0; v < kVectors; ++v) sums[r][v] = Product::add_product(sums[r][v], dword, columns[v]);
      }
      b += kWidth;
#pragma GCC unroll 4
      for (int64_t g = 0; g < kRows / kGroup; ++g) groups[g] += kStep;
    }
  }
#pragma GCC unroll 12
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) epilogue(r, v * kLanes, sums[r][v]);
  }
}

// Stores the sums, or adds them to c at the end: each partial sum starts at zero and has at most kc terms.
struct SaveSums {
  float* c;
  int64_t stride;
  bool accumulate;
  [[gnu::always_inline]] inline void operator()(int64_t row, int64_t col, Lanes sum) const {
    float* to = c + row * stride + col;
    save(to, accumulate ? load(to) + sum : sum);
  }
};

template <typename Product>
void multiply_rows(const PanelProduct& product, float* c, int64_t c_stride, bool accumulate) {
  multiply<Product, RowsTile, 1, RowsTile::kCols>(product, SaveSums{c, c_stride, accumulate});
}

template <ProductKernel::Multiply multiply, int64_t kCols>
void multiply_each(const PanelProduct& product, int64_t panels, float* c, int64_t c_stride) {
  PanelProduct of_panel = product;
  for (int64_t panel = 0; panel < panels; ++panel) {
    multiply(of_panel, c + panel * kCols, c_stride, false);
    of_panel.b += product.dwords * kCols;
  }
}

// The first kVectors registers of a tile's columns; A is part of a packed B panel, so its strides are constants. C is
// large and no longer cached: its lines are prefetched while the panels are multiplied.
template <typename Product, int64_t kVectors>
void multiply_columns(const PanelProduct& product, float* c, int64_t c_stride, bool accumulate) {
  constexpr int64_t kWidth = ColumnsTile::kCols;
  PanelProduct dense = product;
  dense.row_stride = 1;
  for (int64_t r = 0; accumulate && r < ColumnsTile::kRows; ++r) {
#pragma GCC unroll 8
    for (int64_t col = 0; col < kVectors * kLanes; col += kLineDwords) __builtin_prefetch(c + r * c_stride + col, 1);
  }
  multiply<Product, Tile<ColumnsTile::kRows, kVectors>, kWidth, kWidth>(dense, SaveSums{c, c_stride, accumulate});
}

template <typename Product>
void multiply_rows_to_bf16(const PanelProduct& product, const float* c, int64_t c_stride, const float* bias,
                           uint16_t* y, int64_t y_stride) {
  multiply<Product, RowsTile, 1, RowsTile::kCols>(product, [=](int64_t row, int64_t col, Lanes sum) {
    if (c != nullptr) sum = load(c + row * c_stride + col) + sum;
    if (bias != nullptr) sum += load(bias + col);
    save_bf16(y + row * y_stride + col, sum);
  });
}

#if defined(__AMX_BF16__)
constexpr int64_t kTile = 16;  // rows of an AMX tile, and dwords of each
constexpr int64_t kBytes = 4;  // of a dword

// The tile of C is in tiles 0 to 3, the halves of the A panel in 4 and 5, of the B panel in 6 and 7. Starts from c, or
// from zeros where c is null.
[[gnu::always_inline]] inline void sum_in_tiles(const PanelProduct& product, const float* c, int64_t c_stride) {
  const auto [dwords, first_a, row_stride, step_stride, first_b, prefetch_l1, prefetch_l2] = product;
  if (c != nullptr) {
    _tile_loadd(0, c, c_stride * kBytes);
    _tile_loadd(1, c + kTile, c_stride * kBytes);
    _tile_loadd(2, c + kTile * c_stride, c_stride * kBytes);
    _tile_loadd(3, c + kTile * c_stride + kTile, c_stride * kBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint32_t *a = first_a, *b = first_b;
  for (int64_t k = 0; k < dwords; k += kTile) {
    _tile_loadd(4, a, row_stride * kBytes);
    _tile_loadd(6, b, 2 * kTile * kBytes);
    _tile_loadd(7, b + kTile, 2 * kTile * kBytes);
    _tile_loadd(5, a + kTile * row_stride, row_stride * kBytes);
    a += step_stride;
    b += 2 * kTile * kTile;
    prefetch<2>(prefetch_l2, k);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

[[gnu::always_inline]] inline void save_tiles(float* c, int64_t c_stride) {
  _tile_stored(0, c, c_stride * kBytes);
  _tile_stored(1, c + kTile, c_stride * kBytes);
  _tile_stored(2, c + kTile * c_stride, c_stride * kBytes);
  _tile_stored(3, c + kTile * c_stride + kTile, c_stride * kBytes);
}

void multiply_tiles(const PanelProduct& product, float* c, int64_t c_stride, bool accumulate) {
  sum_in_tiles(product, accumulate ? c : nullptr, c_stride);
  save_tiles(c, c_stride);
}

// Heads of 64 elements have two steps of k: with the count known the compiler unrolls them.
void multiply_tiles_across(const PanelProduct& product, int64_t panels, float* c, int64_t c_stride) {
  if (product.dwords != 2 * kTile) return multiply_each<multiply_tiles, 2 * kTile>(product, panels, c, c_stride);
  PanelProduct of_panel = product;
  of_panel.dwords = 2 * kTile;
  of_panel.prefetch_l1 = of_panel.prefetch_l2 = {};
  for (int64_t panel = 0; panel < panels; ++panel) {
    sum_in_tiles(of_panel, nullptr, 0);
    save_tiles(c + panel * 2 * kTile, c_stride);
    of_panel.b += 2 * kTile * 2 * kTile;
  }
}

void multiply_tiles_to_bf16(const PanelProduct& product, const float* c, int64_t c_stride, const float* bias,
                            uint16_t* y, int64_t y_stride) {
  alignas(64) float sums[2 * kTile * 2 * kTile];
  for (int64_t r = 0; r < 2 * kTile; ++r) __builtin_prefetch(y + r * y_stride, 1);
  sum_in_tiles(product, c, c_stride);
  save_tiles(sums, 2 * kTile);
  const Lanes low_bias = bias == nullptr ? Lanes{} : load(bias),
              high_bias = bias == nullptr ? Lanes{} : load(bias + kTile);
  for (int64_t r = 0; r < 2 * kTile; ++r) {
    const Lanes low = load(sums + r * 2 * kTile), high = load(sums + r * 2 * kTile + kTile);
    save(y + r * y_stride,
         bias == nullptr ? _mm512_cvtne2ps_pbh(high, low) : _mm512_cvtne2ps_pbh(high + high_bias, low + low_bias));
  }
}

void configure_tiles() {
  alignas(64) uint8_t palette[64] = {1};  // byte 16 + 2 t: bytes of a row of tile t; byte 48 + t: its rows
  for (int tile = 0; tile < 8; ++tile) {
    palette[16 + 2 * tile] = kTile * 4;
    palette[48 + tile] = kTile;
  }
  __asm__ volatile("" : : "r"(palette) : "memory");  // GCC's intrinsic declares only 8 of its bytes as read
  _tile_loadconfig(palette);
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
}
void release_tiles() {
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_OFF);
  _tile_release();
}
#else
void configure_tiles() {}
void release_tiles() {}
#endif

// Swaps the two off-diagonal kDistance x kDistance blocks of each 2 kDistance x 2 kDistance block.
template <int64_t kDistance>
[[gnu::always_inline]] inline void exchange(Dwords (&x)[kLanes]) {
  IntLanes upper{}, lower{};
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    upper[i] = static_cast<int32_t>(i & kDistance ? kLanes + i - kDistance : i);
    lower[i] = static_cast<int32_t>(i & kDistance ? kLanes + i : i + kDistance);
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    if (i & kDistance) continue;
    const Dwords a = x[i], b = x[i + kDistance];
    x[i] = __builtin_shuffle(a, b, upper);
    x[i + kDistance] = __builtin_shuffle(a, b, lower);
  }
}

[[gnu::always_inline]] inline void transpose(Dwords (&x)[kLanes]) {
  if constexpr (kLanes > 8) exchange<8>(x);
  if constexpr (kLanes > 4) exchange<4>(x);
  exchange<2>(x);
  exchange<1>(x);
}

#if defined(__AMX_BF16__)
bool pack_column_tiles(const uint16_t* x, int64_t stride, int64_t tokens, int64_t cols, uint32_t* a, uint32_t* b) {
  constexpr int64_t kWidth = 2 * kTile;
  const __m512i magnitudes = _mm512_set1_epi16(0x7fff);
  const auto columns = static_cast<__mmask32>(cols >= kWidth ? ~0U : (1U << cols) - 1);
  __m512i largest = _mm512_setzero_si512();
  Dwords even[kTile], odd[kTile];
#pragma GCC unroll 16
  for (int64_t k = 0; k < kTile; ++k) {
    const uint16_t* row = x + 2 * k * stride;
    const auto take = [&](const uint16_t* from, int64_t token) {
      __builtin_prefetch(from + 2 * kWidth);  // the next panels: more streams than the hardware prefetcher follows
      return _mm512_maskz_loadu_epi16(token < tokens ? columns : 0, from);
    };
    const __m512i first = take(row, 2 * k), second = take(row + stride, 2 * k + 1);
    largest = _mm512_max_epu16(largest, _mm512_max_epu16(first & magnitudes, second & magnitudes));
    const auto x0 = bits_of<Dwords>(first), x1 = bits_of<Dwords>(second);
    even[k] = (x0 & 0xffffU) | (x1 << 16);
    odd[k] = (x0 >> 16) | (x1 & 0xffff0000U);
    if (b == nullptr) continue;
    save(b + k * kWidth, even[k]);
    save(b + k * kWidth + kTile, odd[k]);
  }
  if (a != nullptr) {
    transpose(even);
    transpose(odd);
#pragma GCC unroll 16
    for (int64_t c = 0; c < kTile; ++c) {
      save(a + c * kTile, even[c]);
      save(a + (kTile + c) * kTile, odd[c]);
    }
  }
  return _mm512_cmpge_epu16_mask(largest, _mm512_set1_epi16(0x7f80)) == 0;
}

void add_column_tile(const float* sums, int64_t rows, int64_t cols, float* c, int64_t c_stride) {
  constexpr int64_t kWidth = 2 * kTile;
  IntLanes low{}, high{};
  for (int32_t i = 0; i < kTile; ++i) {
    low[i] = i / 2 + i % 2 * kTile;
    high[i] = low[i] + kTile / 2;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = sums + (r / 2 + r % 2 * kTile) * kWidth;
    float* to = c + r * c_stride;
    const Lanes even = load(from), odd = load(from + kTile);
    const Lanes parts[2] = {__builtin_shuffle(even, odd, low), __builtin_shuffle(even, odd, high)};
    for (int64_t part = 0; part < 2; ++part) {
      const int64_t col = part * kTile, count = cols - col;
      if (count >= kTile) {
        save(to + col, load(to + col) + parts[part]);
      } else {
        for (int64_t j = 0; j < count; ++j) to[col + j] += parts[part][j];
      }
    }
  }
}
#else
constexpr decltype(ProductKernels::pack_column_tiles) pack_column_tiles = nullptr;
constexpr decltype(ProductKernels::add_column_tile) add_column_tile = nullptr;
#endif

void pack_rows(const void* x, int64_t stride_bytes, int64_t rows, int64_t row_bytes, int64_t dwords, int64_t width,
               uint32_t* y, int64_t y_stride) {
  const auto* bytes = static_cast<const uint8_t*>(x);
  for (int64_t first = 0; first < width; first += kLanes) {
    for (int64_t k = 0; k < dwords; k += kLanes) {
      Dwords block[kLanes] = {};
      const int64_t bytes_left = row_bytes - 4 * k, count = rows - first;
      if (bytes_left >= 4 * kLanes && count >= kLanes) {
#pragma GCC unroll 16
        for (int64_t r = 0; r < kLanes; ++r) {
          const uint8_t* from = bytes + (first + r) * stride_bytes + 4 * k;
          block[r] = load<Dwords>(from);
          __builtin_prefetch(from + kLanes * stride_bytes);  // more streams than the hardware prefetcher follows
        }
      } else if (bytes_left > 0) {
        for (int64_t r = 0; r < kLanes && r < count; ++r) {
          __builtin_memcpy(&block[r], bytes + (first + r) * stride_bytes + 4 * k,
                           static_cast<size_t>(bytes_left < 4 * kLanes ? bytes_left : 4 * kLanes));
        }
      }
      transpose(block);
      uint32_t* to = y + k * y_stride + first;
      if (k + kLanes <= dwords) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) save(to + i * y_stride, block[i]);
      } else {
        for (int64_t i = 0; k + i < dwords; ++i) save(to + i * y_stride, block[i]);
      }
    }
  }
}

// Calls body(c) for columns 0 .. count - 1; for a whole panel with a constant count, so that the loop is vectorized.
template <typename Body>
[[gnu::always_inline]] inline void for_columns(int64_t count, const Body& body) {
  if (count == RowsTile::kCols) {
#pragma omp simd
    for (int64_t c = 0; c < RowsTile::kCols; ++c) body(c);
  } else if (count == ColumnsTile::kCols) {
#pragma omp simd
    for (int64_t c = 0; c < ColumnsTile::kCols; ++c) body(c);
  } else {
    for (int64_t c = 0; c < count; ++c) body(c);
  }
}

void pack_columns(const uint32_t* x, int64_t stride, int64_t rows, int64_t cols, int64_t dwords, int64_t width,
                  uint32_t* y) {
  const int64_t count = cols < width ? cols : width;
  for (int64_t k = 0; k < dwords; ++k) {
    uint32_t* to = y + k * width;
    const int64_t present = k < rows ? count : 0;
    const uint32_t* row = x + k * stride;
    for_columns(present, [&](int64_t c) { to[c] = row[c]; });
    for (int64_t c = present; c < width; ++c) to[c] = 0;
  }
}

void pack_column_pairs(const uint16_t* x, int64_t stride, int64_t rows, int64_t cols, int64_t dwords, int64_t width,
                       uint32_t* y) {
  const int64_t count = cols < width ? cols : width;
  for (int64_t k = 0; k < dwords; ++k) {
    uint32_t* to = y + k * width;
    const uint16_t *first = x + 2 * k * stride, *second = first + stride;
    const int64_t present = 2 * k < rows ? count : 0;
    if (2 * k + 1 < rows) {
      for_columns(present, [&](int64_t c) { to[c] = first[c] | static_cast<uint32_t>(second[c]) << 16; });
    } else {
      for (int64_t c = 0; c < present; ++c) to[c] = first[c];
    }
    for (int64_t c = present; c < width; ++c) to[c] = 0;
  }
}

void epilogue_f32(const float* c, int64_t c_stride, int64_t rows, int64_t cols, const float* bias, float* y,
                  int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = c + r * c_stride;
    float* to = y + r * stride;
    if (bias != nullptr) {
#pragma omp simd
      for (int64_t j = 0; j < cols; ++j) to[j] = from[j] + bias[j];
    } else {
#pragma omp simd
      for (int64_t j = 0; j < cols; ++j) to[j] = from[j];
    }
  }
}

void epilogue_bf16(const float* c, int64_t c_stride, int64_t rows, int64_t cols, const float* bias, uint16_t* y,
                   int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = c + r * c_stride;
    uint16_t* to = y + r * stride;
    int64_t j = 0;
#if defined(__AVX512BF16__)
    for (; j + kLanes <= cols; j += kLanes) {
      Lanes sum = load(from + j);
      if (bias != nullptr) sum += load(bias + j);
      save_bf16(to + j, sum);
    }
#endif
    if (bias != nullptr) {
#pragma omp simd
      for (int64_t i = j; i < cols; ++i) to[i] = bf16_of_float(from[i] + bias[i]);
    } else {
#pragma omp simd
      for (int64_t i = j; i < cols; ++i) to[i] = bf16_of_float(from[i]);
    }
  }
}

template <ProductKernel::Multiply multiply>
constexpr ProductKernel of_rows(int64_t k_per_dword, ProductKernel::MultiplyToBf16 multiply_to_bf16 = nullptr) {
  return {.rows = RowsTile::kRows,
          .cols = RowsTile::kCols,
          .k_per_dword = k_per_dword,
          .kc = 512,
          .multiply = multiply,
          .multiply_across = multiply_each<multiply, RowsTile::kCols>,
          .multiply_to_bf16 = multiply_to_bf16};
}
template <typename Product, int64_t kVectors>
constexpr ProductKernel::Multiply of_first =
    multiply_columns<Product, (kVectors < ColumnsTile::kVectors ? kVectors : ColumnsTile::kVectors)>;
template <typename Product>
constexpr ProductKernel of_columns(int64_t k_per_dword) {
  static_assert(ColumnsTile::kCols % ColumnsTile::kRows == 0 && ColumnsTile::kVectors <= 6);
  return {.rows = ColumnsTile::kRows,
          .cols = ColumnsTile::kCols,
          .k_per_dword = k_per_dword,
          .kc = kLanes > 8 ? 512 : 128,  // AVX2: A and B panel of 24 x 128 dwords take 24 of the 32 KiB of L1
          .multiply = of_first<Product, 6>,
          .narrow = {of_first<Product, 1>, of_first<Product, 2>, of_first<Product, 3>, of_first<Product, 4>,
                     of_first<Product, 5>, of_first<Product, 6>},
          .narrow_cols = kLanes};
}

#if defined(__AMX_BF16__)
constexpr ProductKernel kBf16 = {.rows = 2 * kTile,
                                 .cols = 2 * kTile,
                                 .k_per_dword = 2,
                                 .step = kTile,
                                 .tile_layout = true,
                                 .kc = 160,  // A and B panel of 32 x 160 dwords take 40 of the 48 KiB of L1
                                 .multiply = multiply_tiles,
                                 .multiply_across = multiply_tiles_across,
                                 .multiply_to_bf16 = multiply_tiles_to_bf16};
constexpr ProductKernel kBf16Columns = kBf16;
#elif defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr ProductKernel kBf16 = of_rows<multiply_rows<Pairs>>(2, multiply_rows_to_bf16<Pairs>),
                        kBf16Columns = of_columns<Pairs>(2);
#else
constexpr ProductKernel kBf16 = {}, kBf16Columns = {};
#endif

}  // namespace

extern const ProductKernels kProductKernels;
const ProductKernels kProductKernels = {.f32 = of_rows<multiply_rows<Floats>>(1),
                                        .bf16 = kBf16,
                                        .f32_columns = of_columns<Floats>(1),
                                        .bf16_columns = kBf16Columns,
                                        .pack_rows = pack_rows,
                                        .pack_columns = pack_columns,
                                        .pack_column_pairs = pack_column_pairs,
                                        .pack_column_tiles = pack_column_tiles,
                                        .add_column_tile = add_column_tile,
                                        .epilogue_f32 = epilogue_f32,
                                        .epilogue_bf16 = epilogue_bf16,
                                        .configure_tiles = configure_tiles,
                                        .release_tiles = release_tiles};

}  // namespace GPTQ_ISA
}  // namespace gptq
