#include "model/norm.h"

namespace gptq {

void normalize(Backend& backend, const ModelConfig& config, ConstMatrixView x, const Affine& norm, MatrixView y) {
  if (config.norm == NormKind::layer)
    return backend.run(
        ops::LayerNorm{.x = x, .weight = norm.weight, .bias = norm.bias, .eps = config.norm_eps, .y = y});
  backend.run(ops::RmsNorm{.x = x, .weight = norm.weight, .eps = config.norm_eps, .y = y});
}

}  // namespace gptq
