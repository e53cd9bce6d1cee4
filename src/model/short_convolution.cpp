#include "model/short_convolution.h"

namespace gptq {

void GatedConvolution::mix(const Block& block, const Batch& batch, MatrixView y) {
  Backend& backend = *block.backend;
  const int64_t hidden = config_.hidden;
  const Affine& convolution = part_of(block, Part::convolution);
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView input = rows.of(batch.input.view());
    const Matrix projected = apply(backend, linears_of(block, StepKind::mixer_in)[0], input);
    const ConstMatrixView all = projected, b = all.col_range(0, hidden), c = all.col_range(hidden, hidden),
                          x = all.col_range(2 * hidden, hidden);
    Matrix gated(backend, dtype_, input.rows, hidden), mixed(backend, dtype_, input.rows, hidden);
    backend.run(ops::Gate{.gate = b, .up = x, .activation = Activation::identity, .y = gated});
    backend.run(ops::CausalConvolution{.x = gated,
                                       .weight = convolution.weight,
                                       .bias = convolution.bias,
                                       .offsets = offsets,
                                       .activation = Activation::identity,
                                       .y = mixed});
    backend.run(ops::Gate{
        .gate = c, .up = mixed, .activation = Activation::identity, .y = y.row_range(rows.first, rows.count)});
  });
}

}  // namespace gptq
