// A quantized linear on its device.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace gptq {

// One quantized linear, columns in natural order: weight[r, k] = scales[r, g_idx[k]] * (codes[r, k] - zeros[r,
// g_idx[k]]).
struct Quantized {
  Matrix codes;                // [rows, cols] u8
  Matrix scales, zeros;        // [rows, groups] f32 (fp16 values), u8
  std::vector<int32_t> g_idx;  // [cols]
  int bits = 0;
  int64_t group_size = 0;
  double loss = 0;   // tr((T - Q) Hd (T - Q)') / tokens; rounding: mean square of W - Q
  double error = 0;  // the same, relative to tr(W Hd W') / tokens; rounding: to W's mean square
  std::vector<std::pair<std::string, double>> stages;  // the loss after each stage
  double target_shift = 0;                             // tr((T - W) Hd (T - W)'), relative as `error`

  Grid grid() const { return {scales.view(), zeros.view(), bits}; }
};

// weight = the quantized values, in weight's dtype.
void dequantize(Backend& backend, const Quantized& quantized, MatrixView weight);

}  // namespace gptq
