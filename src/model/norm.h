// A model's norm of rows: LayerNorm or RMSNorm.
#pragma once

#include "model/block.h"

namespace gptq {

// y = the norm of x's rows with that weight and bias; x and y [rows, cols], of any float dtype.
void normalize(Backend& backend, const ModelConfig& config, ConstMatrixView x, const Affine& norm, MatrixView y);

}  // namespace gptq
