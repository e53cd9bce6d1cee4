// Ops against reference(), on every backend, in every float dtype, on awkward shapes; forward_parity_test.cpp has those
// of the forward pass beside products, grid_parity_test.cpp those on grids. Limits are a priori bounds: a sum of K
// products computed in f32 in any order is within K 2^-24 sum |terms| of the true one, and the result is rounded once
// more to its dtype.
#include <algorithm>

#include "backend/devices.h"

namespace gptq {
namespace {

using Parity = OnEveryDevice;
INSTANTIATE_TEST_SUITE_P(Backends, Parity, testing::ValuesIn(devices()), name_of_device);

struct Size {
  int64_t rows, cols;
};
constexpr Size kSizes[] = {{1, 1}, {1, 33}, {5, 64}, {33, 7}, {3, 1000}, {0, 8}, {8, 0}};

TEST_P(Parity, ConversionsRoundToNearestTiesToEven) {
  for (const DType from : float_dtypes()) {
    for (const DType to : float_dtypes()) {
      SCOPED_TRACE(cat(name_of(from), " to ", name_of(to)));
      for (const Size size : kSizes) {
        Operand x(backend(), from, size.rows, size.cols, normal(1)), y(backend(), to, size.rows, size.cols);
        backend().run(ops::Convert{.x = x.device(), .y = y.device()});
        reference(ops::Convert{.x = x.host, .y = y.host});
        expect_same(y);
      }
    }
  }
}

TEST_P(Parity, ConversionsOfSpecialValues) {
  const std::vector<double> special = {
      0.0,      -0.0,        1 + 0x1p-11, 1 + 3 * 0x1p-11, 1 + 0x1p-8, 1 + 3 * 0x1p-8, 65504,
      65519.99, 65520,       1e30,        -1e30,           0x1p-24,    0x1p-25,        0x1.8p-25,
      0x1p-14,  0x1.ffcp-15, INFINITY,    -INFINITY,       NAN,        3.4e38,         1e-40};
  for (const DType from : float_dtypes()) {
    for (const DType to : float_dtypes()) {
      SCOPED_TRACE(cat(name_of(from), " to ", name_of(to)));
      const auto count = static_cast<int64_t>(special.size());
      Operand x(backend(), from, 1, count, [&](int64_t, int64_t c) { return special[c]; }), y(backend(), to, 1, count);
      backend().run(ops::Convert{.x = x.device(), .y = y.device()});
      reference(ops::Convert{.x = x.host, .y = y.host});
      expect_same(y);
    }
  }
}

TEST_P(Parity, AllHalvesWidenExactly) {
  for (const DType from : {DType::f16, DType::bf16}) {
    Operand x(backend(), from, 256, 256), y(backend(), DType::f32, 256, 256);
    for (int64_t i = 0; i < 65536; ++i) x.host.row<uint16_t>(i / 256)[i % 256] = static_cast<uint16_t>(i);
    x.copy_to_device();
    backend().run(ops::Convert{.x = x.device(), .y = y.device()});
    reference(ops::Convert{.x = x.host, .y = y.host});
    expect_same(y);
  }
}

TEST_P(Parity, GatheredRowsAreTheTablesRows) {
  for (const DType from : float_dtypes()) {
    for (const DType to : float_dtypes()) {
      const std::vector<int32_t> ids = {6, 0, 6, 3};
      Operand table(backend(), from, 7, 33, normal(2)), y(backend(), to, 4, 33);
      backend().run(ops::GatherRows{.table = table.device(), .ids = ids, .y = y.device()});
      reference(ops::GatherRows{.table = table.host, .ids = ids, .y = y.host});
      expect_same(y);
    }
  }
}

TEST_P(Parity, GatheredColumnsAreTheInputsColumnsInAnyDType) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::u8}) {
    const std::vector<int32_t> ids = {32, 0, 5, 5, 31};
    Operand x(backend(), dtype, 9, 33, [](int64_t r, int64_t c) { return static_cast<double>((r * 33 + c) % 200); });
    Operand y(backend(), dtype, 9, 5);
    backend().run(ops::GatherColumns{.x = x.device(), .ids = ids, .y = y.device()});
    reference(ops::GatherColumns{.x = x.host, .ids = ids, .y = y.host});
    expect_same(y);
  }
}

TEST_P(Parity, ClearedMatricesAreZeroAndTheirSurroundingsAreNot) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::u8}) {
    for (const Size size : kSizes) {
      Operand y(backend(), dtype, size.rows, size.cols);
      backend().run(ops::Clear{.y = y.device()});
      reference(ops::Clear{.y = y.host});
      expect_same(y);
    }
  }
}

TEST_P(Parity, AddTakesAFactor) {
  for (const DType from : float_dtypes()) {
    for (const DType to : float_dtypes()) {
      for (const Size size : kSizes) {
        Operand x(backend(), from, size.rows, size.cols, normal(3)), y(backend(), to, size.rows, size.cols, normal(4));
        const float factor = size.rows % 2 == 0 ? 1.0F : -0.75F;
        backend().run(ops::Add{.x = x.device(), .factor = factor, .y = y.device()});
        reference(ops::Add{.x = x.host, .factor = factor, .y = y.host});
        // The product may be rounded on its own.
        expect_close(y, [&](int64_t r, int64_t c) { return kUnit * std::abs(factor * element(x.host, r, c)); });
      }
    }
  }
}

struct ProductSize {
  int64_t m, k, n;
};

// sum_k |x_ik w_jk| + |bias_j|, which bounds every partial sum.
Matrix magnitude_of_product(const Operand& x, const Operand& w, const Operand* bias) {
  const auto absolute = [](const Matrix& m) {
    Matrix result(host_memory(), DType::f32, m.rows(), m.cols());
    for (int64_t r = 0; r < m.rows(); ++r) {
      for (int64_t c = 0; c < m.cols(); ++c) result.row<float>(r)[c] = static_cast<float>(std::abs(element(m, r, c)));
    }
    return result;
  };
  Matrix y(host_memory(), DType::f32, x.host.rows(), w.host.rows());
  const Matrix a = absolute(x.host), b = absolute(w.host), c = bias != nullptr ? absolute(bias->host) : Matrix();
  reference(ops::Linear{.x = a, .w = b, .bias = c, .y = y});
  return y;
}

TEST_P(Parity, Linear) {
  const ProductSize sizes[] = {{1, 1, 1},     {1, 33, 33},  {33, 100, 7}, {7, 64, 1}, {130, 70, 129},
                               {300, 9, 300}, {2, 1100, 3}, {4, 0, 5},    {0, 5, 5},  {5, 5, 0}};
  for (const DType x_dtype : float_dtypes()) {
    for (const DType w_dtype : float_dtypes()) {
      const DType y_dtype = w_dtype == DType::f16 ? DType::f32 : x_dtype;
      for (const auto& [m, k, n] : sizes) {
        for (const bool with_bias : {false, true}) {
          SCOPED_TRACE(
              cat(name_of(x_dtype), " ", name_of(w_dtype), " ", m, " x ", k, " x ", n, with_bias ? " +b" : ""));
          Operand x(backend(), x_dtype, m, k, normal(7)), w(backend(), w_dtype, n, k, normal(8)),
              bias(backend(), w_dtype, 1, n, normal(9)), y(backend(), y_dtype, m, n);
          backend().run(ops::Linear{
              .x = x.device(), .w = w.device(), .bias = with_bias ? bias.device() : MatrixView(), .y = y.device()});
          reference(ops::Linear{.x = x.host,
                                .w = w.host,
                                .bias = with_bias ? ConstMatrixView(bias.host) : ConstMatrixView(),
                                .y = y.host});
          const Matrix bound = magnitude_of_product(x, w, with_bias ? &bias : nullptr);
          expect_close(y, [&, k = k](int64_t r, int64_t c) {
            return static_cast<double>(k + 1) * kUnit * static_cast<double>(bound.row<float>(r)[c]);
          });
        }
      }
    }
  }
}

// Every term is an exact or once rounded product; (tokens + 1) additions follow, to what h held.
TEST_P(Parity, GramAddsToTheLowerTriangle) {
  const Size sizes[] = {{1, 1}, {1, 33}, {70, 33}, {33, 200}, {9, 300}, {0, 5}, {2100, 17}};
  for (const DType dtype : float_dtypes()) {
    for (const auto& [tokens, n] : sizes) {
      SCOPED_TRACE(cat(name_of(dtype), " ", tokens, " x ", n));
      Operand x(backend(), dtype, tokens, n, normal(16)), h(backend(), DType::f32, n, n, normal(17)),
          dropped(backend(), DType::i32, 1, 1, [](int64_t, int64_t) { return 5; });
      Matrix bound(host_memory(), DType::f32, n, n);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = std::abs(element(h.host, i, j));
          for (int64_t t = 0; t < tokens; ++t) sum += std::abs(element(x.host, t, i) * element(x.host, t, j));
          bound.row<float>(i)[j] = static_cast<float>(sum);
        }
      }
      backend().run(ops::AddGram{.x = x.device(), .h = h.device(), .dropped = dropped.device()});
      reference(ops::AddGram{.x = x.host, .h = h.host, .dropped = dropped.host});
      expect_close(h, [&, tokens = tokens](int64_t r, int64_t c) {
        return c > r ? INFINITY : static_cast<double>(tokens + 1) * kUnit * static_cast<double>(bound.row<float>(r)[c]);
      });
      expect_same(dropped);
    }
  }
}

TEST_P(Parity, GramDropsAndCountsRowsThatAreNotFinite) {
  for (const DType dtype : float_dtypes()) {
    Operand x(backend(), dtype, 40, 35, normal(18)), h(backend(), DType::f32, 35, 35, normal(19)),
        dropped(backend(), DType::i32, 1, 1, [](int64_t, int64_t) { return 2; });
    set_element(x.host, 0, 0, NAN);
    set_element(x.host, 17, 34, INFINITY);
    set_element(x.host, 17, 2, NAN);
    set_element(x.host, 39, 20, -INFINITY);
    x.copy_to_device();
    backend().run(ops::AddGram{.x = x.device(), .h = h.device(), .dropped = dropped.device()});
    reference(ops::AddGram{.x = x.host, .h = h.host, .dropped = dropped.host});
    EXPECT_EQ(dropped.host.row<int32_t>(0)[0], 5);
    expect_same(dropped);
    // 41 terms, each at most 5 deviations squared
    expect_close(h, [&](int64_t r, int64_t c) { return c > r ? INFINITY : 41 * kUnit * 41 * 25; });
  }
}

TEST_P(Parity, PermuteSymmetricReadsTheLowerTriangle) {
  for (const int64_t n : {0, 1, 33, 130}) {
    std::vector<int32_t> order(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(i);
    std::shuffle(order.begin(), order.end(), std::mt19937(20));
    Operand h(backend(), DType::f32, n, n, normal(21)), y(backend(), DType::f32, n, n);
    backend().run(ops::PermuteSymmetric{.h = h.device(), .order = order, .damp = 0.5F, .y = y.device()});
    reference(ops::PermuteSymmetric{.h = h.host, .order = order, .damp = 0.5F, .y = y.host});
    expect_same(y);
  }
}

// Backward stable: the residual is that of rounding each product and sum of the substitution.
TEST_P(Parity, SolvedTrianglesGiveTheRightSide) {
  for (const Size size : {Size{1, 1}, Size{7, 33}, Size{200, 130}, Size{0, 4}}) {
    for (const bool transposed : {false, true}) {
      const auto& [rows, n] = size;
      Operand x(backend(), DType::f32, rows, n, normal(23)),
          factor(backend(), DType::f32, n, n, [noise = normal(24, 0.1)](int64_t r, int64_t c) mutable {
            return r == c ? 1.5 : c < r ? noise(r, c) : 1e30;  // above the diagonal is nothing to read
          });
      backend().run(ops::SolveTriangle{.factor = factor.device(), .transposed = transposed, .x = x.device()});
      const Matrix got = x.fetch();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t k = 0; k < n; ++k) {
          double sum = 0, magnitude = 0;
          for (int64_t j = transposed ? 0 : k; j < (transposed ? k + 1 : n); ++j) {
            const double product =
                element(got, r, j) * (transposed ? element(factor.host, k, j) : element(factor.host, j, k));
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_LE(std::abs(sum - element(x.host, r, k)), static_cast<double>(2 * n + 4) * kUnit * magnitude);
        }
      }
    }
  }
}

// f64 inside, so the result is as good as its rounding to f32 times what the matrix (condition below 100) makes of it.
TEST_P(Parity, SystemsOfEachRowAreSolved) {
  for (const Size size : {Size{1, 1}, Size{40, 9}, Size{3, 65}, Size{0, 4}}) {
    const auto& [rows, n] = size;
    Operand a(backend(), DType::f32, rows, n * n,
              [noise = normal(25, 0.02), n = n](int64_t row, int64_t i) mutable {
                const int64_t r = i / n, c = i % n;
                if (row == 2) return r == c ? -1.0 : 0.0;  // not positive definite
                return r == c ? 2.0 + 0.1 * static_cast<double>(row % 7) : c < r ? noise(r, c) : 1e30;
              }),
        x(backend(), DType::f32, rows, n, normal(26));
    backend().run(ops::SolveSystems{.a = a.device(), .ridge = 1e-3F, .x = x.device()});
    reference(ops::SolveSystems{.a = a.host, .ridge = 1e-3F, .x = x.host});
    expect_close(x, [](int64_t, int64_t) { return 1e-6; });
    if (rows > 2) {
      EXPECT_EQ(element(x.host, 2, 0), 0);
    }
  }
}

TEST_P(Parity, GroupProductsAreSumsOverEachGroup) {
  for (const int64_t rows : {0, 1, 37}) {
    for (const int64_t group_size : {1, 33, 128}) {
      Operand x(backend(), DType::f32, rows, 5 * group_size, normal(27)),
          y(backend(), DType::f32, rows, 5 * group_size, normal(28)), products(backend(), DType::f32, rows, 5);
      backend().run(ops::GroupProducts{
          .x = x.device(), .y = y.device(), .group_size = group_size, .products = products.device()});
      reference(ops::GroupProducts{.x = x.host, .y = y.host, .group_size = group_size, .products = products.host});
      expect_close(products, [&](int64_t r, int64_t g) {
        double magnitude = 0;
        for (int64_t k = g * group_size; k < (g + 1) * group_size; ++k)
          magnitude += std::abs(element(x.host, r, k) * element(y.host, r, k));
        return static_cast<double>(group_size) * kUnit * magnitude;
      });
    }
  }
}

TEST_P(Parity, MirrorFillsTheUpperTriangle) {
  for (const int64_t n : {0, 1, 33, 130}) {
    Operand h(backend(), DType::f32, n, n, normal(29));
    backend().run(ops::Mirror{.h = h.device()});
    reference(ops::Mirror{.h = h.host});
    expect_same(h);
  }
}

// Differences have one rounding, to the inputs' dtype; sums over tokens are in f32. A row that is not finite in either
// adds nothing.
TEST_P(Parity, CrossGramIsOfInputsAndTheirDifferences) {
  for (const DType dtype : float_dtypes()) {
    for (const Size size : {Size{1, 1}, Size{9, 33}, Size{130, 40}, Size{0, 4}}) {
      const auto& [tokens, n] = size;
      Operand x(backend(), dtype, tokens, n, normal(30)), original(backend(), dtype, tokens, n, normal(31)),
          c(backend(), DType::f32, n, n, normal(32));
      if (tokens > 6) {
        set_element(x.host, 3, n / 2, NAN);
        set_element(original.host, 5, n - 1, INFINITY);
        x.copy_to_device();
        original.copy_to_device();
      }
      backend().run(ops::AddCrossGram{.x = x.device(), .original = original.device(), .c = c.device()});
      reference(ops::AddCrossGram{.x = x.host, .original = original.host, .c = c.host});
      expect_close(c, [&](int64_t i, int64_t j) {
        double magnitude = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          if (tokens > 6 && (t == 3 || t == 5)) continue;
          magnitude += std::abs(element(x.host, t, i) * (element(original.host, t, j) - element(x.host, t, j)));
        }
        return static_cast<double>(tokens + 2) * kUnit * magnitude;
      });
    }
  }
}

TEST_P(Parity, RowNormsAreAdded) {
  for (const DType dtype : float_dtypes()) {
    for (const Size size : kSizes) {
      Operand x(backend(), dtype, size.rows, size.cols, normal(24)),
          norms(backend(), DType::f32, size.rows, 1, normal(25));
      backend().run(ops::AddRowNorms{.x = x.device(), .norms = norms.device()});
      reference(ops::AddRowNorms{.x = x.host, .norms = norms.host});
      expect_close(norms, [&](int64_t r, int64_t) {
        return static_cast<double>(size.cols + 2) * kUnit * (std::abs(element(norms.host, r, 0)) + 4);
      });
    }
  }
}

// A product of two inputs rounded to bf16 is wrong by about 2^-8 of it, a sum of those by n 2^-24 more, and a square
// of that sum by twice as much and its own square. Where all is positive this holds of each sum's own size.
TEST_P(Parity, ProductNormsAreThoseOfTheLowerTriangle) {
  for (const bool positive : {false, true}) {
    for (const Size size : {Size{1, 1}, Size{7, 33}, Size{3, 300}, Size{270, 520}, Size{1, 1000}, Size{0, 4}}) {
      const auto& [rows, n] = size;
      SCOPED_TRACE(cat(rows, " x ", n, positive ? ", positive" : ""));
      const auto value = [positive](unsigned seed) -> Generator {
        return [positive, random = normal(seed)](int64_t r, int64_t c) mutable {
          return positive ? std::abs(random(r, c)) : random(r, c);
        };
      };
      Operand w(backend(), DType::f32, rows, n, value(30)), norms(backend(), DType::f32, rows, 1, value(31)),
          factor(backend(), DType::f32, n, n, [below = value(32)](int64_t r, int64_t c) mutable {
            return c <= r ? below(r, c) : 1e30;  // above the diagonal is nothing to read
          });
      std::vector<double> limits;
      for (int64_t r = 0; r < rows; ++r) {
        const double share = 0x1.01p-8 + static_cast<double>(n) * kUnit;
        double limit = 0, sum = std::abs(element(norms.host, r, 0));
        for (int64_t k = 0; k < n; ++k) {
          double product = 0, magnitude = 0;
          for (int64_t j = 0; j <= k; ++j) {
            const double term = element(w.host, r, j) * element(factor.host, k, j);
            product += term;
            magnitude += std::abs(term);
          }
          const double error = share * magnitude;
          limit += 2 * std::abs(product) * error + error * error;
          sum += (std::abs(product) + error) * (std::abs(product) + error);
        }
        limits.push_back(limit + static_cast<double>(n + 2) * kUnit * sum);
      }
      backend().run(ops::AddProductNorms{.w = w.device(), .factor = factor.device(), .norms = norms.device()});
      reference(ops::AddProductNorms{.w = w.host, .factor = factor.host, .norms = norms.host});
      expect_close(norms, [&](int64_t r, int64_t) { return limits[static_cast<size_t>(r)]; });
    }
  }
}

// Componentwise backward error of a Cholesky factorization: |h - F'F| <= (n + 1) 2^-24 |F|'|F|, and the right side is
// at most sqrt(h_ii h_jj) in each place.
TEST_P(Parity, FactorTimesItselfIsTheMatrix) {
  for (const int64_t n : {0, 1, 2, 33, 256, 257, 600}) {
    SCOPED_TRACE(n);
    Operand x(backend(), DType::f32, n + 10, n, normal(26)),
        h(backend(), DType::f32, n, n, [](int64_t, int64_t) { return 0; }), dropped(backend(), DType::i32, 1, 1);
    Matrix gram(host_memory(), DType::f32, n, n);
    std::fill_n(gram.row<float>(0), n * n, 0.0F);
    reference(ops::AddGram{.x = x.host, .h = gram, .dropped = dropped.host});
    std::memcpy(h.host.view().data, gram.view().data, gram.bytes());
    h.copy_to_device();
    ASSERT_TRUE(backend().run(ops::Factor{.h = h.device()}));
    const Matrix F = h.fetch();
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        if (j > i) {
          ASSERT_EQ(F.row<float>(i)[j], 0.0F);
          continue;
        }
        double sum = 0;
        for (int64_t k = i; k < n; ++k) sum += static_cast<double>(F.row<float>(k)[i]) * F.row<float>(k)[j];
        const double size = std::sqrt(element(gram, i, i) * element(gram, j, j));
        ASSERT_LE(std::abs(sum - element(gram, i, j)), static_cast<double>(n + 1) * kUnit * size) << i << ", " << j;
      }
    }
  }
}

TEST_P(Parity, FactorRefusesWhatIsNotPositiveDefinite) {
  for (const int64_t n : {1, 5, 300}) {
    for (const double bad : {-1.0, 0.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      for (const int64_t place : {int64_t{0}, n / 2, n - 1}) {
        Operand h(backend(), DType::f32, n, n, [](int64_t r, int64_t c) { return r == c ? 2.0 : 0.0; });
        set_element(h.host, place, place, bad);
        h.copy_to_device();
        EXPECT_FALSE(backend().run(ops::Factor{.h = h.device()})) << n << ", " << bad << " at " << place;
      }
    }
  }
  Operand h(backend(), DType::f32, 300, 300, [](int64_t r, int64_t c) { return r == c ? 2.0 : 0.0; });
  set_element(h.host, 290, 3, NAN);
  h.copy_to_device();
  EXPECT_FALSE(backend().run(ops::Factor{.h = h.device()}));
}

// Sums of up to 1024 exponentials are in f32; the rest is a few roundings of numbers as large as the logits.
TEST_P(Parity, TokenLosses) {
  for (const DType dtype : float_dtypes()) {
    for (const Size size : {Size{1, 1}, Size{5, 33}, Size{2, 5000}, Size{0, 10}}) {
      Operand logits(backend(), dtype, size.rows, size.cols, normal(27, 5)),
          losses(backend(), DType::f32, size.rows, 1);
      std::vector<int32_t> targets;
      for (int64_t r = 0; r < size.rows; ++r) targets.push_back(static_cast<int32_t>(r * 13 % size.cols));
      backend().run(ops::TokenLosses{.logits = logits.device(), .targets = targets, .losses = losses.device()});
      reference(ops::TokenLosses{.logits = logits.host, .targets = targets, .losses = losses.host});
      expect_close(losses, [&](int64_t, int64_t) {
        return (static_cast<double>(std::min<int64_t>(size.cols, 1024)) + 8 * 25) * kUnit;
      });
    }
  }
}

TEST_P(Parity, DivergenceAndSameTop) {
  for (const DType dtype : float_dtypes()) {
    for (const Size size : {Size{1, 1}, Size{5, 33}, Size{3, 5000}, Size{0, 10}}) {
      Operand p(backend(), dtype, size.rows, size.cols, normal(28, 3)),
          q(backend(), dtype, size.rows, size.cols, normal(29, 3));
      Operand divergence(backend(), DType::f32, size.rows, 1), same_top(backend(), DType::f32, size.rows, 1);
      const bool tie = size.rows > 1 && size.cols > 20;
      if (tie) {  // one row with a tie for the maximum, and the first counts
        set_element(p.host, 1, 3, 50);
        set_element(p.host, 1, 20, 50);
        set_element(q.host, 1, 3, 50);
        p.copy_to_device();
        q.copy_to_device();
      }
      backend().run(ops::CompareLogits{
          .p = p.device(), .q = q.device(), .divergence = divergence.device(), .same_top = same_top.device()});
      reference(ops::CompareLogits{.p = p.host, .q = q.host, .divergence = divergence.host, .same_top = same_top.host});
      expect_same(same_top);
      if (tie) {
        EXPECT_EQ(same_top.host.row<float>(1)[0], 1.0F);
      }
      // A log-probability is wrong by about 4 2^-24 of the largest logit (50), its ratio to another is at most 70.
      expect_close(divergence, [&](int64_t, int64_t) {
        return (static_cast<double>(std::min<int64_t>(size.cols, 1024)) + 4 * 50) * kUnit * 70;
      });
    }
  }
}

// Where a backend lacks an op, reference() computes it on the host, and that is counted; the CPU lacks none.
TEST_P(Parity, EveryOpAcceptsMatricesOfNothing) {
  Backend& device = backend();
  Matrix rows(device, DType::f32, 0, 8), wide(device, DType::f32, 1, 8), nothing(device, DType::f32, 0, 0),
      column(device, DType::f32, 0, 1), channels(device, DType::f32, 8, 4);
  Matrix bytes(device, DType::u8, 0, 8), small(device, DType::f32, 0, 1), zeros(device, DType::u8, 0, 1),
      words(device, DType::i32, 1, 0);
  const std::vector<float> ones(64, 1.0F);
  Matrix square = to_device(device, DType::f32, 8, 8, ones.data());
  const int32_t none = 0;
  Matrix count = to_device(device, DType::i32, 1, 1, &none);
  const std::vector<int32_t> ids, groups(8);
  const std::vector<int64_t> offsets = {0, 0};
  device.run(ops::GatherRows{.table = rows, .ids = ids, .y = rows});
  device.run(ops::GatherColumns{.x = nothing, .ids = ids, .y = nothing});
  device.run(ops::Convert{.x = rows, .y = rows});
  device.run(ops::Clear{.y = rows});
  device.run(ops::Add{.x = rows, .factor = 1, .y = rows});
  device.run(ops::RmsNorm{.x = rows, .weight = wide, .eps = 1e-5F, .y = rows});
  device.run(ops::LayerNorm{.x = rows, .weight = wide, .eps = 1e-5F, .y = rows});
  device.run(ops::Linear{.x = rows, .w = square, .y = rows});
  device.run(
      ops::Rope{.cos = wide, .sin = wide, .offsets = offsets, .order = RotaryOrder::halves, .head_dim = 8, .x = rows});
  device.run(ops::Attention{.q = rows, .k = rows, .v = rows, .offsets = offsets, .shape = {1, 1, 8, 1}, .y = rows});
  device.run(ops::CachedAttention{.q = rows, .k = rows, .v = rows, .shape = {1, 1, 8, 1}, .y = rows});
  device.run(ops::Gate{.gate = rows, .up = rows, .activation = Activation::silu, .y = rows});
  device.run(ops::Cap{.kind = ops::Cap::soft, .bound = 1, .x = rows});
  device.run(ops::Xielu{.x = rows, .alphas = square.view().row_range(0, 2).col_range(0, 1), .y = rows});
  device.run(ops::LogDecay{.x = rows, .log_rate = wide, .bias = wide, .y = rows});
  device.run(ops::GatedDeltaRule{.q = rows,
                                 .k = rows,
                                 .v = rows,
                                 .log_decay = column,
                                 .beta = column,
                                 .offsets = offsets,
                                 .shape = {1, 1, 8, 8},
                                 .y = rows});
  device.run(ops::CausalConvolution{.x = rows, .weight = channels, .offsets = offsets, .y = rows});
  device.run(ops::AddRows{.x = rows, .ids = ids, .y = rows});
  device.run(ops::AddGram{.x = rows, .h = square, .dropped = count});
  device.run(ops::PermuteSymmetric{.h = nothing, .order = ids, .damp = 1, .y = nothing});
  device.run(ops::AddCrossGram{.x = rows, .original = rows, .c = square});
  device.run(ops::Mirror{.h = nothing});
  device.run(ops::SolveTriangle{.factor = square, .transposed = true, .x = rows});
  device.run(ops::SolveSystems{.a = rows, .ridge = 0, .x = nothing});
  device.run(ops::GroupProducts{.x = rows, .y = rows, .group_size = 8, .products = column});
  device.run(ops::AddRowNorms{.x = rows, .norms = column});
  device.run(ops::AddProductNorms{.w = rows, .factor = square, .norms = column});
  EXPECT_TRUE(device.run(ops::Factor{.h = nothing}));
  device.run(ops::FindGrid{.w = rows, .group_size = 8, .scales = small, .zeros = zeros});
  device.run(ops::QuantizeColumns{.w = rows,
                                  .feedback = rows,
                                  .factor = square,
                                  .groups = groups,
                                  .grid = {small, zeros, 4},
                                  .codes = bytes,
                                  .errors = rows,
                                  .loss = column});
  device.run(ops::RoundColumns{.w = rows, .groups = groups, .grid = {small, zeros, 4}, .codes = bytes});
  device.run(ops::Dequantize{.codes = bytes, .groups = groups, .grid = {small, zeros, 4}, .w = rows});
  device.run(ops::Pack{.codes = bytes, .bits = 4, .words = words});
  device.run(ops::Unpack{.words = words, .bits = 4, .codes = bytes});
  const PackedWeight packed{words, nothing, nothing, 4, 8};
  device.run(ops::DequantizePacked{.weight = packed, .w = rows});
  device.run(ops::TokenLosses{.logits = rows, .targets = ids, .losses = column});
  device.run(ops::CompareLogits{.p = rows, .q = rows, .divergence = column, .same_top = column});
  device.run(ops::StateSpaceDual{.x = rows,
                                 .dt = column,
                                 .b = rows,
                                 .c = rows,
                                 .dt_bias = square,
                                 .a_log = square,
                                 .d = square,
                                 .offsets = offsets,
                                 .shape = {.heads = 1, .head_dim = 8, .groups = 1, .state = 8},
                                 .y = rows});
  device.run(ops::SelectiveScan{
      .x = rows, .dt = rows, .b = rows, .c = rows, .a_log = square, .d = wide, .offsets = offsets, .y = rows});
  EXPECT_EQ(to_host<float>(device, square), ones);
  size_t on_host = 0;
  for (int index = 0; index < ops::AllOps::kCount; ++index)
    ops::visit_type(index, [&](auto type) { on_host += is_composed<typename decltype(type)::type>() ? 0 : 1; });
  EXPECT_EQ(device.fallbacks().size(), GetParam().complete ? 0 : on_host);
  for (const auto& [op, calls] : device.fallbacks()) EXPECT_EQ(calls, 1) << op;
  // Composed of others where a device lacks them.
  device.run(ops::NarrowLinear{.x = rows, .w = square, .y = rows});
  device.run(ops::PackedLinear{.x = rows, .weight = packed, .y = nothing});
}

}  // namespace
}  // namespace gptq
