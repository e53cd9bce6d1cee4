// Matrix products by one kernel.
#pragma once

#include "backend/opencl/xpu.h"

namespace gptq::opencl {

// c = alpha a b + c, or + bias. Every operand may be of any float dtype; sums are in f32, in an order that depends on
// the inner dimension alone.
struct Product {
  ConstMatrixView a;          // [m, k], or [k, m] where by columns
  bool a_by_columns = false;  // element (i, t) is at [t, i]
  ConstMatrixView b;          // [n, k], or [k, n] where by columns
  bool b_by_columns = false;  // element (t, j) is at [t, j]
  MatrixView c;               // [m, n]
  ConstMatrixView bias = {};  // [1, n] or empty
  // i32 [1, k] or empty: terms t of every sum where it holds 0 are left out, whatever a and b hold there.
  ConstMatrixView kept = {};
  float alpha = 1;
  bool adds = false;     // to c
  bool lower = false;    // only c's lower triangle is computed
  bool b_lower = false;  // b's matrix [n, k] counts as zero above its diagonal
};

void multiply(Xpu& xpu, const Product& product);

}  // namespace gptq::opencl
