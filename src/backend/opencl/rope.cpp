// Rotary position embeddings.
#include "ops/rope.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void rope(Xpu& xpu, const ops::Rope& op) {
  const Matrix offsets = xpu.on_device(op.offsets);
  if (op.x.empty()) return;
  const int64_t pairs = op.cos.cols, all_pairs = op.x.cols / op.head_dim * pairs;
  xpu.launch({"rope", "rope"}, elements(op.x.rows, all_pairs), op.cos, op.sin, offsets,
             static_cast<int32_t>(op.offsets.size()) - 1, static_cast<int32_t>(op.order == RotaryOrder::interleaved),
             static_cast<int32_t>(op.head_dim), static_cast<int32_t>(pairs), op.x, op.x.rows, all_pairs);
}

}  // namespace

void add_rope_ops(XpuOps& table) { table.add<rope>(); }

}  // namespace gptq::opencl
