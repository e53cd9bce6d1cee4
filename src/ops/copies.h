// Ops that move elements as they are, or in another dtype.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// y[i, :] = table[ids[i], :].   table [n, width], y [ids.size(), width]; ids lie in [0, n)
struct GatherRows {
  static constexpr const char* kName = "gather_rows";
  ConstMatrixView table;
  std::span<const int32_t> ids;
  MatrixView y;

  auto reads() { return std::array{&table}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return table.dtype; }
  static GatherRows trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.counted(s[0]), t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const GatherRows& op);

// y[:, i] = x[:, ids[i]].   x [rows, n], y [rows, ids.size()]; x and y have the same dtype, any
struct GatherColumns {
  static constexpr const char* kName = "gather_columns";
  ConstMatrixView x;
  std::span<const int32_t> ids;
  MatrixView y;

  auto reads() { return std::array{&x}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static GatherColumns trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.counted(s[1]), t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const GatherColumns& op);

// y = x in y's dtype.   x, y [rows, cols] float
struct Convert {
  static constexpr const char* kName = "convert";
  ConstMatrixView x;
  MatrixView y;

  auto reads() { return std::array{&x}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static Convert trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.undefined(DType::f32, s[0], s[1])};
  }
};
void reference(const Convert& op);

// y = 0.   y [rows, cols] of any dtype
struct Clear {
  static constexpr const char* kName = "clear";
  MatrixView y;

  auto reads() { return no_reads(); }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return y.dtype; }
  static Clear trial(TrialOperands& t, const OpSizes& s, DType dtype) { return {t.undefined(dtype, s[0], s[1])}; }
};
void reference(const Clear& op);

using CopyOps = OpList<GatherRows, GatherColumns, Convert, Clear>;

}  // namespace gptq::ops
