// Rotary position embeddings, row by row.
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

void rope(CpuBackend& cpu, const ops::Rope& op) {
  std::vector<int64_t> positions;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t token = op.offsets[s]; token < op.offsets[s + 1]; ++token) positions.push_back(token - op.offsets[s]);
  }
  const bool is_bf16 = op.order == RotaryOrder::halves && op.x.dtype == DType::bf16;
  cpu.for_rows(op.x.rows, op.x.cols, is_bf16 ? 0 : 1, [&](int64_t row, float* scratch) {
    const int64_t position = positions[static_cast<size_t>(row)];
    const float *c = op.cos.row<float>(position), *s = op.sin.row<float>(position);
    float* values = is_bf16 ? nullptr : cpu.update_row(op.x, row, scratch);
    for (int64_t head = 0; head + op.head_dim <= op.x.cols; head += op.head_dim) {
      if (is_bf16) {
        uint16_t* low = op.x.row<uint16_t>(row) + head;
        cpu.kernels.rotate_bf16(c, s, low, low + op.cos.cols, op.cos.cols);
      } else if (op.order == RotaryOrder::halves) {
        cpu.kernels.rotate(c, s, values + head, values + head + op.cos.cols, op.cos.cols);
      } else {
        cpu.kernels.rotate_pairs(c, s, values + head, op.cos.cols);
      }
    }
    if (!is_bf16) cpu.finish_row(values, op.x, row);
  });
}

}  // namespace

void add_rope_ops(CpuOps& table) { table.add<rope>(); }

}  // namespace gptq::cpu
