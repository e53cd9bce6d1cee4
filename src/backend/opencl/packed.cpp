// Products with packed weights.
#include "ops/packed.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void dequantize_packed(Xpu& xpu, const ops::DequantizePacked& op) {
  const PackedWeight& weight = op.weight;
  xpu.launch({"packed", "dequantize_packed"}, elements(op.w.cols, op.w.rows), weight.words, weight.scales, weight.zeros,
             weight.bits, weight.group_size, op.w, op.w.rows, op.w.cols);
}

void packed_linear(Xpu& xpu, const ops::PackedLinear& op) {
  constexpr int64_t kOutputs = 32, kSlices = 8;  // of a work-group, as in packed.cl
  const PackedWeight& weight = op.weight;
  const Grid grid{{pieces_of(op.y.cols, kOutputs), op.y.rows, 1}, {kOutputs, kSlices, 1}};
  xpu.launch({"packed", "packed_linear"}, grid, op.x, weight.words, weight.scales, weight.zeros, weight.bits,
             weight.group_size, op.bias, op.y, op.y.cols, op.x.cols);
}

}  // namespace

void add_packed_ops(XpuOps& table) {
  table.add<dequantize_packed>();
  table.add<packed_linear>();
}

}  // namespace gptq::opencl
