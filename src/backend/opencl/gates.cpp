// Functions of single elements.
#include "ops/gates.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void gate(Xpu& xpu, const ops::Gate& op) {
  xpu.launch({"gates", "gate"}, elements(op.y.rows, op.y.cols), op.gate, op.up, static_cast<int32_t>(op.activation),
             op.y, op.y.rows, op.y.cols);
}

void cap(Xpu& xpu, const ops::Cap& op) {
  xpu.launch({"gates", "cap"}, elements(op.x.rows, op.x.cols), op.x, static_cast<int32_t>(op.kind == ops::Cap::soft),
             op.bound, op.x.rows, op.x.cols);
}

void xielu(Xpu& xpu, const ops::Xielu& op) {
  xpu.launch({"gates", "xielu"}, elements(op.y.rows, op.y.cols), op.x, op.alphas, op.y, op.y.rows, op.y.cols);
}

}  // namespace

void add_gate_ops(XpuOps& table) {
  table.add<gate>();
  table.add<cap>();
  table.add<xielu>();
}

}  // namespace gptq::opencl
