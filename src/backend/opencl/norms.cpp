// Norms over groups of columns.
#include "ops/norms.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

// A work-group for each group of columns of each row.
Grid groups_of(ConstMatrixView y, ConstMatrixView weight) {
  constexpr int64_t kThreads = 64;
  return {{weight.cols == 0 ? 0 : y.cols / weight.cols, y.rows, 1}, {kThreads, 1, 1}};
}

void rms_norm(Xpu& xpu, const ops::RmsNorm& op) {
  xpu.launch({"norms", "rms_norm"}, groups_of(op.y, op.weight), op.x, op.weight, op.y, op.eps,
             static_cast<int32_t>(op.weight.cols), static_cast<int32_t>(op.weight.rows));
}

void layer_norm(Xpu& xpu, const ops::LayerNorm& op) {
  xpu.launch({"norms", "layer_norm"}, groups_of(op.y, op.weight), op.x, op.weight, op.bias, op.y, op.eps,
             static_cast<int32_t>(op.weight.cols), static_cast<int32_t>(op.weight.rows));
}

}  // namespace

void add_norm_ops(XpuOps& table) {
  table.add<rms_norm>();
  table.add<layer_norm>();
}

}  // namespace gptq::opencl
