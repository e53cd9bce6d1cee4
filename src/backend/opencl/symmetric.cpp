// Symmetric matrices.
#include "ops/symmetric.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void mirror(Xpu& xpu, const ops::Mirror& op) {
  xpu.launch({"symmetric", "mirror"}, elements(op.h.rows, op.h.rows), op.h, op.h.rows);
}

void permute_symmetric(Xpu& xpu, const ops::PermuteSymmetric& op) {
  const Matrix order = xpu.on_device(op.order);
  xpu.launch({"symmetric", "permute_symmetric"}, elements(op.y.rows, op.y.rows), op.h, order, op.damp, op.y, op.y.rows);
}

}  // namespace

void add_symmetric_ops(XpuOps& table) {
  table.add<mirror>();
  table.add<permute_symmetric>();
}

}  // namespace gptq::opencl
