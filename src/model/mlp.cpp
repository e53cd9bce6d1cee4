#include "model/mlp.h"

#include <vector>

namespace gptq {

Matrix Mlp::activate(const Block& block, int64_t step, const Batch& batch) {
  Backend& backend = *block.backend;
  const Step& linears = block.steps[static_cast<size_t>(step)];
  const ConstMatrixView input = batch.input;
  Matrix y(backend, dtype_, batch.tokens(), width(linears));
  const ConstMatrixView alphas = part_of(block, Part::activation_alphas).weight;
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets) {
    if (alphas.empty()) return activate(backend, linears, rows.of(input), rows.of(y), 0);
    const Matrix x = apply(backend, linears.linears[0], rows.of(input));
    backend.run(ops::Xielu{.x = x, .alphas = alphas, .y = rows.of(y)});
  });
  return y;
}

Matrix Mlp::activate_rows(Backend& backend, const Step& step, ConstMatrixView x, int64_t room) const {
  Matrix y(backend, dtype_, room, width(step));
  activate(backend, step, x, y.view().row_range(0, x.rows), room);
  return y;
}

int64_t Mlp::width(const Step& step) const {
  const bool is_fused = !config_.architecture->gate.empty() && step.linears.size() == 1;
  return step.linears[0].weight.rows() / (is_fused ? 2 : 1);
}

void Mlp::activate(Backend& backend, const Step& step, ConstMatrixView x, MatrixView y, int64_t room) const {
  const std::vector<Linear>& linears = step.linears;
  if (backend.fuses_linears(dtype_)) {
    const ConstMatrixView weight = linears[0].weight, bias = linears[0].bias;
    GatedWeights weights{.gate = weight, .gate_bias = bias, .activation = config_.activation};
    if (weight.rows != y.cols) {  // gate and up fused in one linear
      weights.gate = weight.row_range(0, y.cols);
      weights.up = weight.row_range(y.cols, y.cols);
      if (!bias.empty()) {
        weights.gate_bias = bias.col_range(0, y.cols);
        weights.up_bias = bias.col_range(y.cols, y.cols);
      }
    } else if (linears.size() > 1) {
      weights.up = linears[1].weight;
      weights.up_bias = linears[1].bias;
    }
    return backend.run(ops::GatedLinear{.x = x, .weights = weights, .y = y});
  }
  const Matrix first = apply(backend, linears[0], x, room),
               second = linears.size() > 1 ? apply(backend, linears[1], x, room) : Matrix();
  const ConstMatrixView gate = first.view().row_range(0, x.rows);
  const bool is_fused = gate.cols != y.cols;
  const ConstMatrixView up = is_fused         ? gate.col_range(y.cols, y.cols)
                             : second.empty() ? ConstMatrixView()
                                              : second.view().row_range(0, x.rows);
  backend.run(ops::Gate{.gate = gate.col_range(0, y.cols), .up = up, .activation = config_.activation, .y = y});
}

}  // namespace gptq
