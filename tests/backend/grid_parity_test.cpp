// Ops on grids and codes against reference(). A code may differ from the reference's only where the value before
// rounding lies within f32 error of a tie.
#include <algorithm>

#include "backend/devices.h"

namespace gptq {
namespace {

using GridParity = OnEveryDevice;
INSTANTIATE_TEST_SUITE_P(Backends, GridParity, testing::ValuesIn(devices()), name_of_device);

// sum_k importance_k |scale (code_k - zero) - w_k|^norm for one row of one group
double grid_error(ConstMatrixView w, ConstMatrixView importance, double scale, double zero, const GridSearch& search) {
  double error = 0;
  for (int64_t k = 0; k < w.cols; ++k) {
    const double value = element(w, 0, k), top = (1 << search.bits) - 1;
    const double code = std::clamp(std::nearbyint(value / scale) + zero, 0.0, top);
    const double weight = importance.empty() ? 1 : element(importance, 0, k);
    error += weight * std::pow(std::abs(scale * (code - zero) - value), search.norm);
  }
  return error;
}

struct GridCase {
  int64_t rows, groups, group_size;
  GridSearch search;
  bool weighted;
};

const GridCase kGridCases[] = {{1, 1, 1, {4, true, 1, 0, 2}, false},
                               {1, 1, 33, {4, true, 1, 0, 2}, false},
                               {33, 3, 32, {4, true, 1, 0, 2}, false},
                               {17, 2, 64, {3, false, 1, 0, 2}, false},
                               {9, 1, 128, {8, false, 1, 0, 2}, true},
                               {33, 2, 64, {4, true, 40, 0.0175F, 2}, true},
                               {15, 2, 16, {2, false, 40, 0.0175F, 2}, true},
                               {33, 2, 64, {4, true, 80, 0.01F, 2.4F}, false},
                               {16, 3, 128, {3, false, 80, 0.01F, 2.4F}, true},
                               {33, 3, 32, {4, true, 1, 0, 2, true}, false},
                               {33, 2, 64, {3, true, 40, 0.0175F, 2, true}, true},
                               {17, 2, 33, {2, true, 40, 0.0175F, 2, true}, true},
                               {33, 2, 64, {4, false, 40, 0.0175F, 2, false, true}, true},
                               {9, 1, 300, {2, false, 10, 0.0175F, 2, false, true}, false}};

// The device may choose another candidate only where both err alike (f32 sums of up to 128 terms: 1e-5), and differ by
// a rounding of the scale or the zero only there too.
TEST_P(GridParity, FindGridChoosesACandidateAsGoodAsTheReferences) {
  for (const GridCase& c : kGridCases) {
    SCOPED_TRACE(cat(c.rows, " rows, ", c.groups, " x ", c.group_size, ", ", c.search.bits, " bits, ",
                     c.search.symmetric ? "sym, " : "asym, ", c.search.candidates, " candidates, norm ",
                     c.search.norm));
    const int64_t cols = c.groups * c.group_size;
    Operand w(backend(), DType::f32, c.rows, cols, normal(1, 0.02)),
        importance(backend(), DType::f32, 1, cols,
                   [random = normal(2)](int64_t i, int64_t j) mutable { return std::exp(random(i, j)); });
    Operand scales(backend(), DType::f32, c.rows, c.groups), zeros(backend(), DType::u8, c.rows, c.groups);
    const ConstMatrixView none;
    backend().run(ops::FindGrid{.w = w.device(),
                                .importance = c.weighted ? ConstMatrixView(importance.device()) : none,
                                .group_size = c.group_size,
                                .search = c.search,
                                .scales = scales.device(),
                                .zeros = zeros.device()});
    reference(ops::FindGrid{.w = w.host,
                            .importance = c.weighted ? ConstMatrixView(importance.host) : none,
                            .group_size = c.group_size,
                            .search = c.search,
                            .scales = scales.host,
                            .zeros = zeros.host});
    const Matrix got_scales = scales.fetch(), got_zeros = zeros.fetch();
    int64_t different = 0;
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t g = 0; g < c.groups; ++g) {
        const float scale = got_scales.row<float>(r)[g];
        EXPECT_EQ(scale, static_cast<float>(Half(scale))) << "a scale that fp16 cannot hold";
        if (scale == scales.host.row<float>(r)[g] && element(got_zeros, r, g) == element(zeros.host, r, g)) continue;
        ++different;
        const ConstMatrixView values = w.host.view().block(r, 1, g * c.group_size, c.group_size);
        const ConstMatrixView weights =
            c.weighted ? ConstMatrixView(importance.host.view().block(0, 1, g * c.group_size, c.group_size)) : none;
        const double mine = grid_error(values, weights, scale, element(got_zeros, r, g), c.search);
        const double best =
            grid_error(values, weights, element(scales.host, r, g), element(zeros.host, r, g), c.search);
        EXPECT_NEAR(mine, best, 1e-5 * best) << "row " << r << ", group " << g;
      }
    }
    EXPECT_LE(different, c.rows * c.groups / 50);
  }
}

TEST_P(GridParity, FindGridOfZerosOneSignAndExtremes) {
  const auto value = [](int64_t r, int64_t k) {
    const double values[] = {0, k + 1.0, -k - 1.0, k == 3 ? 1e9 : 0.5, k * 1e-9, k == 0 ? -3e-3 : 0};
    return values[r];
  };
  for (const GridSearch& kind :
       {GridSearch{.symmetric = true}, GridSearch{.symmetric = false}, GridSearch{.signed_scales = true},
        GridSearch{.symmetric = false, .search_zeros = true}}) {
    for (const int candidates : {1, 10}) {
      Operand w(backend(), DType::f32, 6, 8, value), scales(backend(), DType::f32, 6, 1),
          zeros(backend(), DType::u8, 6, 1);
      GridSearch search = kind;
      search.candidates = candidates;
      search.shrink_step = 0.05F;
      backend().run(ops::FindGrid{
          .w = w.device(), .group_size = 8, .search = search, .scales = scales.device(), .zeros = zeros.device()});
      reference(
          ops::FindGrid{.w = w.host, .group_size = 8, .search = search, .scales = scales.host, .zeros = zeros.host});
      expect_same(scales);
      expect_same(zeros);
    }
  }
}

// A grid over `groups` of normal weights of deviation 0.02.
struct GridOperands {
  Operand scales, zeros;
  GridOperands(Backend& backend, int64_t rows, int64_t groups, int bits)
      : scales(backend, DType::f32, rows, groups,
               [bits, random = normal(3)](int64_t r, int64_t c) mutable {
                 return static_cast<float>(
                     Half(static_cast<float>(0.08 / (1 << bits) * (1 + 0.3 * std::tanh(random(r, c))))));
               }),
        zeros(backend, DType::u8, rows, groups,
              [bits](int64_t r, int64_t c) { return ((1 << bits) / 2 + r + c) % (1 << bits); }) {}
  Grid device(int bits) { return {scales.device(), zeros.device(), bits}; }
  Grid host(int bits) { return {scales.host, zeros.host, bits}; }
};

// Columns of several groups, out of order.
std::vector<int32_t> mixed_groups(int64_t cols, int64_t groups) {
  std::vector<int32_t> result;
  for (int64_t k = 0; k < cols; ++k) result.push_back(static_cast<int32_t>(k * 7 % groups));
  return result;
}

struct Shape {
  int64_t rows, cols, groups;
};
constexpr Shape kShapes[] = {{1, 1, 1}, {1, 33, 1},  {33, 128, 3}, {16, 8, 2},
                             {5, 9, 4}, {70, 57, 1}, {0, 8, 1},    {4, 0, 1}};

TEST_P(GridParity, RoundColumns) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const auto& [rows, cols, groups] : kShapes) {
      GridOperands grid(backend(), rows, groups, bits);
      const std::vector<int32_t> group_of = mixed_groups(cols, groups);
      Operand w(backend(), DType::f32, rows, cols, normal(4, 0.03)), codes(backend(), DType::u8, rows, cols);
      backend().run(
          ops::RoundColumns{.w = w.device(), .groups = group_of, .grid = grid.device(bits), .codes = codes.device()});
      reference(ops::RoundColumns{.w = w.host, .groups = group_of, .grid = grid.host(bits), .codes = codes.host});
      expect_same(codes);
    }
  }
}

TEST_P(GridParity, TiesRoundToEven) {
  Operand w(backend(), DType::f32, 1, 6, [](int64_t, int64_t c) { return 0.25 * (2.0 * c - 5); });  // -2.5 .. 2.5 steps
  Operand scales(backend(), DType::f32, 1, 1, [](int64_t, int64_t) { return 0.5; }),
      zeros(backend(), DType::u8, 1, 1, [](int64_t, int64_t) { return 8; }), codes(backend(), DType::u8, 1, 6);
  backend().run(ops::RoundColumns{.w = w.device(),
                                  .groups = std::vector<int32_t>(6),
                                  .grid = {scales.device(), zeros.device(), 4},
                                  .codes = codes.device()});
  const double expected[] = {8 - 2, 8 - 2, 8 - 0, 8 + 0, 8 + 2, 8 + 2};
  for (int64_t c = 0; c < 6; ++c) codes.host.row<uint8_t>(0)[c] = static_cast<uint8_t>(expected[c]);
  expect_same(codes);
}

// scale * (code - zero) has 11 + 9 bits, so it is exact in f32 and rounded once to f16 or bf16.
TEST_P(GridParity, DequantizeIsExactInF32) {
  for (const DType dtype : float_dtypes()) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const auto& [rows, cols, groups] : kShapes) {
        GridOperands grid(backend(), rows, groups, bits);
        const std::vector<int32_t> group_of = mixed_groups(cols, groups);
        Operand codes(backend(), DType::u8, rows, cols,
                      [bits](int64_t r, int64_t c) { return (r * 31 + c * 7) % (1 << bits); });
        Operand w(backend(), dtype, rows, cols);
        backend().run(
            ops::Dequantize{.codes = codes.device(), .groups = group_of, .grid = grid.device(bits), .w = w.device()});
        reference(ops::Dequantize{.codes = codes.host, .groups = group_of, .grid = grid.host(bits), .w = w.host});
        expect_same(w);
      }
    }
  }
}

TEST_P(GridParity, PackedWordsAreTheReferences) {
  for (const int bits : {2, 3, 4, 8}) {
    const int64_t whole = bits == 3 ? 32 : 32 / bits;  // codes that fill words
    for (const int64_t rows : {0, 1, 7, 64, 130}) {
      for (const int64_t cols : {int64_t{0}, whole, 3 * whole, 50 * whole, 97 * whole}) {
        SCOPED_TRACE(cat(bits, " bits, ", rows, " x ", cols));
        Operand codes(backend(), DType::u8, rows, cols,
                      [random = std::mt19937(8), bits](int64_t, int64_t) mutable { return random() % (1U << bits); });
        Operand words(backend(), DType::i32, cols * bits / 32, rows);
        backend().run(ops::Pack{.codes = codes.device(), .bits = bits, .words = words.device()});
        reference(ops::Pack{.codes = codes.host, .bits = bits, .words = words.host});
        expect_same(words);
      }
    }
  }
}

TEST_P(GridParity, UnpackedCodesAreTheReferences) {
  for (const int bits : {2, 3, 4, 8}) {
    const int64_t whole = bits == 3 ? 32 : 32 / bits;  // codes that fill words
    for (const int64_t rows : {0, 1, 7, 64, 130}) {
      for (const int64_t cols : {int64_t{0}, whole, 3 * whole, 50 * whole, 97 * whole}) {
        SCOPED_TRACE(cat(bits, " bits, ", rows, " x ", cols));
        Operand words(backend(), DType::i32, cols * bits / 32, rows,
                      [random = std::mt19937(9)](int64_t, int64_t) mutable { return static_cast<int32_t>(random()); });
        Operand codes(backend(), DType::u8, rows, cols);
        backend().run(ops::Unpack{.words = words.device(), .bits = bits, .codes = codes.device()});
        reference(ops::Unpack{.words = words.host, .bits = bits, .codes = codes.host});
        expect_same(codes);
      }
    }
  }
}

// The feedback of column k is a sum of at most cols products in f32. Once a code differs, the rest of its row may.
TEST_P(GridParity, QuantizeColumns) {
  for (const int bits : {2, 4, 8}) {
    for (const auto& [rows, cols, groups] : kShapes) {
      SCOPED_TRACE(cat(bits, " bits, ", rows, " x ", cols));
      GridOperands grid(backend(), rows, groups, bits);
      const std::vector<int32_t> group_of = mixed_groups(cols, groups);
      Operand w(backend(), DType::f32, rows, cols, normal(5, 0.02)),
          feedback(backend(), DType::f32, rows, cols, normal(6, 0.1)),
          factor(backend(), DType::f32, cols, cols, [noise = normal(7)](int64_t r, int64_t c) mutable {
            return r == c ? 20 + std::abs(noise(r, c)) : c < r ? 2 * noise(r, c) : 1e30;  // above is nothing to read
          });
      Operand codes(backend(), DType::u8, rows, cols), errors(backend(), DType::f32, rows, cols),
          loss(backend(), DType::f32, rows, 1, [](int64_t r, int64_t) { return r; });
      backend().run(ops::QuantizeColumns{.w = w.device(),
                                         .feedback = feedback.device(),
                                         .factor = factor.device(),
                                         .groups = group_of,
                                         .grid = grid.device(bits),
                                         .codes = codes.device(),
                                         .errors = errors.device(),
                                         .loss = loss.device()});
      reference(ops::QuantizeColumns{.w = w.host,
                                     .feedback = feedback.host,
                                     .factor = factor.host,
                                     .groups = group_of,
                                     .grid = grid.host(bits),
                                     .codes = codes.host,
                                     .errors = errors.host,
                                     .loss = loss.host});
      const Matrix got_codes = codes.fetch(), got_errors = errors.fetch(), got_loss = loss.fetch();
      int64_t rows_that_differ = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t *mine = got_codes.row<uint8_t>(r), *theirs = codes.host.row<uint8_t>(r);
        const int64_t first = std::mismatch(mine, mine + cols, theirs).first - mine;
        for (int64_t k = 0; k < first; ++k) {  // w - dequantized is rounded once
          ASSERT_NEAR(element(got_errors, r, k), element(errors.host, r, k), 1e-8);
        }
        if (first < cols) {
          ++rows_that_differ;
          EXPECT_EQ(std::abs(mine[first] - theirs[first]), 1);
        } else {
          const double expected = element(loss.host, r, 0);
          EXPECT_NEAR(element(got_loss, r, 0), expected, 1e-4 * expected + 1e-6);
        }
      }
      EXPECT_LE(rows_that_differ, rows / 30);
    }
  }
}

}  // namespace
}  // namespace gptq
