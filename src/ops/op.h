// An op is a value: a small struct whose fields are its operands and parameters. Each struct also says
//   kName                    its name in reports and errors
//   reads(), writes()        pointers to its views, so that generic code can check them or put others in their place
//   sizes(), dtype()         with the name, the key of calls that cost the same
//   trial(operands, sizes, dtype)   an op with that key, to measure its speed
// and, where it differs from the defaults below: kIsProduct, work(), trial_sizes(); compose(), which computes the op by
// others where a backend lacks it; Result and kExpected, the type that run() returns and its usual value.
// Next to the struct stands reference(op): plain loops on host memory, sums in double.
//
// Rules for all ops:
//   * outputs never alias inputs; strides are free; sizes of zero are allowed;
//   * float matrices may be f32, f16 or bf16, each operand on its own, unless the op says otherwise; sums are in f32
//     or better;
//   * a result rounded to its dtype is rounded to nearest, ties to even.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/matrix.h"

namespace gptq {

using OpSizes = std::array<int64_t, 4>;

// The key of a call: calls with the same key take the same time and memory.
struct OpCall {
  std::string_view op;
  OpSizes sizes{};  // as the op's sizes() has them
  DType dtype = DType::f32;
  auto operator<=>(const OpCall&) const = default;
};

namespace ops {

inline std::array<ConstMatrixView*, 0> no_reads() { return {}; }

// The ops of a header, and those of several.
template <typename... Op>
struct OpList {
  static constexpr int kCount = sizeof...(Op);
};
template <typename... Lists>
struct Concatenation;
template <typename... Op>
struct Concatenation<OpList<Op...>> {
  using List = OpList<Op...>;
};
template <typename... A, typename... B, typename... Rest>
struct Concatenation<OpList<A...>, OpList<B...>, Rest...> : Concatenation<OpList<A..., B...>, Rest...> {};

// The type that run() returns for an op.
template <typename Op>
struct ResultType {
  using Type = void;
};
template <typename Op>
requires requires { typename Op::Result; }
struct ResultType<Op> {
  using Type = typename Op::Result;
};
template <typename Op>
using ResultOf = typename ResultType<Op>::Type;

// Whether the work of an op is multiply-adds of a product rather than elements.
template <typename Op>
constexpr bool is_product() {
  if constexpr (requires { Op::kIsProduct; }) return Op::kIsProduct;
  return false;
}

inline double as_double(int64_t size) { return static_cast<double>(size); }

// Multiply-adds, or elements where an op has no products: rows times columns unless the op says otherwise.
template <typename Op>
double work(const OpSizes& sizes) {
  if constexpr (requires { Op::work(sizes); }) return Op::work(sizes);
  return as_double(sizes[0]) * as_double(sizes[1]);
}

// The work that a trial may have.
struct TrialLimits {
  double products = 0, elements = 0;
};

// Halves sizes[i], down to `least` or a little below it, while the work exceeds `most`.
template <typename Op>
void halve(OpSizes& sizes, size_t i, int64_t least, double most) {
  while (work<Op>(sizes) > most && sizes[i] > least) sizes[i] /= 2;
}

// The sizes of the trial that stands for calls of `sizes`: the same speed, and small. Sizes that do not change the
// speed are cut first; by default, rows.
template <typename Op>
OpSizes trial_sizes(OpSizes sizes, const TrialLimits& limits) {
  if constexpr (requires { Op::trial_sizes(sizes, limits); }) {
    return Op::trial_sizes(sizes, limits);
  } else {
    halve<Op>(sizes, 0, 16, is_product<Op>() ? limits.products / 16 : limits.elements);
    return sizes;
  }
}

// Makes and owns the operands of a trial, on a device.
class TrialOperands {
 public:
  virtual ~TrialOperands() = default;
  // Values in [-0.5, 0.5), the same each time; zeros in matrices of integers.
  virtual MatrixView random(DType dtype, int64_t rows, int64_t cols) = 0;
  virtual MatrixView filled(float value, int64_t rows, int64_t cols) = 0;  // f32
  virtual MatrixView zeros(DType dtype, int64_t rows, int64_t cols) = 0;
  virtual MatrixView undefined(DType dtype, int64_t rows, int64_t cols) = 0;
  // Each row is the identity of n rows, one after the other, in f32: positive definite.
  virtual MatrixView identities(int64_t rows, int64_t n) = 0;
  virtual DType residual_dtype(DType computed) const = 0;
  // On the host: `count` times `value`; 0 .. count - 1 in order, or shuffled; the offsets of one sequence.
  virtual std::span<const int32_t> ids(int64_t count, int32_t value) = 0;
  virtual std::span<const int32_t> counted(int64_t count) = 0;
  virtual std::span<const int32_t> shuffled(int64_t count) = 0;
  virtual std::span<const float> weights(int64_t count, float value) = 0;
  virtual std::span<const int64_t> sequence(int64_t tokens) = 0;

  // The identity [n, n] in f32.
  MatrixView identity(int64_t n) {
    const MatrixView row = identities(1, n);
    return {row.data, row.dtype, n, n};
  }
};

}  // namespace ops
}  // namespace gptq
