// State-space ops against reference(), on every backend, in every float dtype, on awkward shapes and on sequences
// shorter than a chunk, as long, and longer. Limits are a priori bounds, as in parity_test.cpp.
#include <algorithm>
#include <cmath>

#include "backend/devices.h"

namespace gptq {
namespace {

using StateSpaceParity = OnEveryDevice;
INSTANTIATE_TEST_SUITE_P(Backends, StateSpaceParity, testing::ValuesIn(devices()), name_of_device);

Matrix absolute(ConstMatrixView m) {
  Matrix result(host_memory(), m.dtype, m.rows, m.cols);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) set_element(result, r, c, std::abs(element(m, r, c)));
  }
  return result;
}

int64_t longest_of(const std::vector<int64_t>& offsets) {
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) longest = std::max(longest, offsets[s + 1] - offsets[s]);
  return longest;
}

// x, b, c and dt are columns of one matrix, as models have them.
struct DualOperands {
  Operand all, dt_bias, a_log, d, y;
  DualOperands(Backend& backend, DType dtype, int64_t tokens, const StateSpaceShape& shape, Placed placed)
      : all(backend, dtype, tokens, shape.heads * (shape.head_dim + 1) + 2 * shape.groups * shape.state, normal(1),
            placed),
        dt_bias(backend, DType::f32, 1, shape.heads, normal(2, 3)),
        a_log(backend, DType::f32, 1, shape.heads, normal(3, 1.5)),
        d(backend, DType::f32, 1, shape.heads, normal(4)),
        y(backend, dtype, tokens, shape.heads * shape.head_dim, nullptr, placed) {}
};

ops::StateSpaceDual dual_of(MatrixView all, MatrixView dt_bias, MatrixView a_log, MatrixView d,
                            const std::vector<int64_t>& offsets, const StateSpaceShape& shape, MatrixView y) {
  const int64_t width = shape.heads * shape.head_dim, of_groups = shape.groups * shape.state;
  return {.x = all.col_range(0, width),
          .dt = all.col_range(width + 2 * of_groups, shape.heads),
          .b = all.col_range(width, of_groups),
          .c = all.col_range(width + of_groups, of_groups),
          .dt_bias = dt_bias,
          .a_log = a_log,
          .d = d,
          .offsets = offsets,
          .shape = shape,
          .y = y};
}

// The sum of the magnitudes of all terms of each element of y.
Matrix magnitudes(const ops::StateSpaceDual& op) {
  Matrix y(host_memory(), DType::f32, op.y.rows, op.y.cols);
  const Matrix x = absolute(op.x), b = absolute(op.b), c = absolute(op.c), d = absolute(op.d);
  ops::StateSpaceDual of_absolutes = op;
  of_absolutes.x = x, of_absolutes.b = b, of_absolutes.c = c, of_absolutes.d = d, of_absolutes.y = y;
  reference(of_absolutes);
  return y;
}

// The decay between two tokens is a product of up to two chunks' decays, 64 each, and one of each chunk in between, all
// with errors of 2^-24; decays of exp(-80) and less are none, and the exponents of the others are wrong by 2^-24 of 80,
// twice. The sums have `state` and 64 terms, and one of each chunk. Where operands are rounded to 11 bits, there are
// four of them, and the difference of those is at most 2^-11 of each.
TEST_P(StateSpaceParity, DualOfEachHead) {
  struct Case {
    std::vector<int64_t> offsets;
    StateSpaceShape shape;
  };
  const StateSpaceShape plain{.heads = 4, .head_dim = 8, .groups = 2, .state = 16},
      odd{.heads = 6, .head_dim = 33, .groups = 2, .state = 17, .min_step = 0.01F, .max_step = 3};
  const Case cases[] = {{{0, 1}, plain},
                        {{0, 63}, plain},
                        {{0, 64}, plain},
                        {{0, 65}, plain},
                        {{0, 2048}, plain},
                        {{0, 1, 1, 70, 198, 263}, odd},
                        {{0, 130}, {.heads = 1, .head_dim = 1, .groups = 1, .state = 1}},
                        {{0, 129}, {.heads = 11, .head_dim = 64, .groups = 1, .state = 128}},
                        {{0, 66}, {.heads = 2, .head_dim = 80, .groups = 2, .state = 256}}};
  for (const DType dtype : float_dtypes()) {
    for (const Placed placed : {Placed::oddly, Placed::aligned}) {
      for (const auto& [offsets, shape] : cases) {
        SCOPED_TRACE(cat(name_of(dtype), ", ", name_of(placed), ", ", offsets.back(), " tokens, ", shape.heads, " x ",
                         shape.head_dim, ", state ", shape.state));
        DualOperands on(backend(), dtype, offsets.back(), shape, placed);
        backend().run(dual_of(on.all.device(), on.dt_bias.device(), on.a_log.device(), on.d.device(), offsets, shape,
                              on.y.device()));
        const ops::StateSpaceDual host =
            dual_of(on.all.host, on.dt_bias.host, on.a_log.host, on.d.host, offsets, shape, on.y.host);
        reference(host);
        const Matrix terms = magnitudes(host);
        const double units = 2 * 64 + 160 + 64 + static_cast<double>(shape.state + longest_of(offsets) / 32 + 16);
        const double narrow = dtype == DType::f32 ? 0 : 4 * 0x1p-11;
        expect_close(on.y, [&](int64_t r, int64_t c) { return (units * kUnit + narrow) * element(terms, r, c); });
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(StateSpaceParity, SequencesDoNotSeeEachOther) {
  const StateSpaceShape shape{.heads = 3, .head_dim = 16, .groups = 1, .state = 24};
  const std::vector<int64_t> offsets = {0, 70, 140};
  DualOperands on(backend(), DType::f32, 140, shape, Placed::aligned);
  for (int64_t r = 0; r < 70; ++r) {
    for (int64_t c = 0; c < on.all.host.cols(); ++c) set_element(on.all.host, r + 70, c, element(on.all.host, r, c));
  }
  on.all.copy_to_device();
  backend().run(
      dual_of(on.all.device(), on.dt_bias.device(), on.a_log.device(), on.d.device(), offsets, shape, on.y.device()));
  const Matrix y = on.y.fetch();
  for (int64_t r = 0; r < 70; ++r) {
    for (int64_t c = 0; c < y.cols(); ++c) ASSERT_EQ(element(y, r, c), element(y, r + 70, c)) << r << ", " << c;
  }
}

// A state is a product of decays, each with an error of 3 2^-24 and of its exponent, 2^-24 of 80 in all, and a sum with
// a term for each token. Step sizes are wrong by 8 2^-24.
TEST_P(StateSpaceParity, SelectiveScanOfEachChannel) {
  struct Case {
    std::vector<int64_t> offsets;
    int64_t channels, state;
  };
  const Case cases[] = {{{0, 1}, 5, 16},   {{0, 63}, 64, 16}, {{0, 64}, 70, 16},         {{0, 65}, 33, 7},
                        {{0, 2048}, 3, 4}, {{0, 9}, 130, 33}, {{0, 1, 1, 70, 90}, 17, 1}};
  for (const DType dtype : float_dtypes()) {
    for (const Placed placed : {Placed::oddly, Placed::aligned}) {
      for (const auto& [offsets, channels, state] : cases) {
        const int64_t tokens = offsets.back();
        SCOPED_TRACE(cat(name_of(dtype), ", ", name_of(placed), ", ", tokens, " x ", channels, ", state ", state));
        Operand x(backend(), dtype, tokens, channels, normal(1), placed),
            dt(backend(), dtype, tokens, channels, normal(2, 4), placed),
            bc(backend(), dtype, tokens, 2 * state, normal(3), placed),
            a_log(backend(), DType::f32, channels, state, normal(4, 1.5)),
            d(backend(), DType::f32, 1, channels, normal(5)), y(backend(), dtype, tokens, channels, nullptr, placed);
        const auto scan = [&, state = state](ConstMatrixView values, ConstMatrixView steps, ConstMatrixView both,
                                             ConstMatrixView rates, ConstMatrixView skip, MatrixView to) {
          return ops::SelectiveScan{.x = values,
                                    .dt = steps,
                                    .b = both.col_range(0, state),
                                    .c = both.col_range(state, state),
                                    .a_log = rates,
                                    .d = skip,
                                    .offsets = offsets,
                                    .y = to};
        };
        backend().run(scan(x.device(), dt.device(), bc.device(), a_log.device(), d.device(), y.device()));
        reference(scan(x.host, dt.host, bc.host, a_log.host, d.host, y.host));
        Matrix terms(host_memory(), DType::f32, tokens, channels);
        reference(scan(absolute(x.host), dt.host, absolute(bc.host), a_log.host, absolute(d.host), terms));
        const double units = 4 * static_cast<double>(longest_of(offsets)) + 80 + 8 * 80 + static_cast<double>(state);
        expect_close(y, [&](int64_t r, int64_t c) { return units * kUnit * element(terms, r, c); });
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace gptq
