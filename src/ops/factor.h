// The factorization of a Hessian, and systems of equations.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// In place: from the lower triangle of a positive definite h to the lower triangular F with h = F' F. So R = F' is the
// upper triangular factor of h = R R', and inv(R) is the GPTQ paper's cholesky(inverse(h), upper). Gives false, with h
// undefined, where h is not positive definite.   h [n, n] f32, upper triangle zero before and after
struct Factor {
  static constexpr const char* kName = "factor";
  static constexpr bool kIsProduct = true;
  using Result = bool;
  static constexpr bool kExpected = true;
  MatrixView h;

  auto reads() { return no_reads(); }
  auto writes() { return std::array{&h}; }
  OpSizes sizes() const { return {h.rows}; }
  DType dtype() const { return h.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[0]) * as_double(s[0]) / 6; }
  // Factorizations need large matrices for their full speed.
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<Factor>(s, 0, 256, 2 * limits.products);
    return s;
  }
  static Factor trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) { return {t.identity(s[0])}; }
};
bool reference(const Factor& op);

// In place: x becomes the y with y F = x, or y F' = x where `transposed`.
// factor [n, n] f32, of which the lower triangle F is read; x [rows, n] f32
struct SolveTriangle {
  static constexpr const char* kName = "solve_triangle";
  static constexpr bool kIsProduct = true;
  ConstMatrixView factor;
  bool transposed = false;
  MatrixView x;

  auto reads() { return std::array{&factor}; }
  auto writes() { return std::array{&x}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[1]) / 2; }
  static SolveTriangle trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.identity(s[1]), true, t.random(DType::f32, s[0], s[1])};
  }
};
void reference(const SolveTriangle& op);

// In place: x_r becomes the y with (A_r + ridge mean(diag A_r) I) y = x_r for each row r, computed in f64. Where that
// matrix is not positive definite, x_r becomes 0.
// a [rows, n * n] f32: the lower triangle of row r, as n rows of n, is that of the symmetric A_r; x [rows, n] f32
struct SolveSystems {
  static constexpr const char* kName = "solve_systems";
  static constexpr bool kIsProduct = true;
  ConstMatrixView a;
  float ridge = 0;
  MatrixView x;

  auto reads() { return std::array{&a}; }
  auto writes() { return std::array{&x}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) {
    return as_double(s[0]) * as_double(s[1]) * as_double(s[1]) * as_double(s[1]) / 6;
  }
  static SolveSystems trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.identities(s[0], s[1]), 1, t.random(DType::f32, s[0], s[1])};
  }
};
void reference(const SolveSystems& op);

using FactorOps = OpList<Factor, SolveTriangle, SolveSystems>;

}  // namespace gptq::ops
