// Convolutions over tokens.
#include "ops/convolution.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void causal_convolution(Xpu& xpu, const ops::CausalConvolution& op) {
  const Matrix offsets = xpu.on_device(op.offsets);
  xpu.launch({"convolution", "causal_convolution"}, elements(op.y.rows, op.y.cols), op.x, op.weight, op.bias, offsets,
             static_cast<int32_t>(op.offsets.size()) - 1, static_cast<int32_t>(op.weight.cols),
             static_cast<int32_t>(op.activation), op.y, op.y.rows, op.y.cols);
}

}  // namespace

void add_convolution_ops(XpuOps& table) { table.add<causal_convolution>(); }

}  // namespace gptq::opencl
