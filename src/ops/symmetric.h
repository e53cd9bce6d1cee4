// Symmetric matrices that are stored as their lower triangle.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// h[i, j] = h[j, i] for j > i.   h [n, n] f32
struct Mirror {
  static constexpr const char* kName = "mirror";
  MatrixView h;

  auto reads() { return no_reads(); }
  auto writes() { return std::array{&h}; }
  OpSizes sizes() const { return {h.rows}; }
  DType dtype() const { return h.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[0]); }
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<Mirror>(s, 0, 256, limits.elements);
    return s;
  }
  static Mirror trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[0])};
  }
};
void reference(const Mirror& op);

// y[i, j] = h[order[i], order[j]] for j <= i, plus `damp` on the diagonal; y's upper triangle is zero. h is symmetric
// and its lower triangle is read.   h, y [n, n] f32; order is a permutation of [0, n)
struct PermuteSymmetric {
  static constexpr const char* kName = "permute_symmetric";
  ConstMatrixView h;
  std::span<const int32_t> order;
  float damp = 0;
  MatrixView y;

  auto reads() { return std::array{&h}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {h.rows}; }
  DType dtype() const { return h.dtype; }
  static double work(const OpSizes& s) { return Mirror::work(s); }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) { return Mirror::trial_sizes(s, limits); }
  static PermuteSymmetric trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[0]), t.shuffled(s[0]), 1, t.undefined(DType::f32, s[0], s[0])};
  }
};
void reference(const PermuteSymmetric& op);

using SymmetricOps = OpList<Mirror, PermuteSymmetric>;

}  // namespace gptq::ops
