#include "model/rope_tables.h"

#include <algorithm>

namespace gptq {

void RopeTables::prepare(int64_t longest, Backend& backend) {
  for (size_t rope = 0; rope < config_.ropes.size(); ++rope) table(longest, static_cast<int64_t>(rope), backend);
}

RopeRows RopeTables::table(const Batch& batch, int64_t index, Backend& backend) {
  if (index < 0) return {};
  int64_t length = 0;
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
    length = std::max(length, batch.offsets[s + 1] - batch.offsets[s]);
  const int64_t first = batch.first_position();
  const RopeMatrices& all = table(first + length, index, backend);
  return {all.cos.view().row_range(first, length), all.sin.view().row_range(first, length)};
}

const RopeTables::RopeMatrices& RopeTables::table(int64_t length, int64_t index, Backend& backend) {
  const Rope& kind = config_.ropes[index];
  RopeMatrices& rope = tables_[{&backend, index}];
  const bool fits = rope.cos.rows() >= length && !differ_by_length(kind, rope.cos.rows(), length);
  if (!fits) {
    const RopeTable table = rope_table(kind, length);
    rope.cos = to_device(backend, DType::f32, table.positions, table.half_dim, table.cos.data());
    rope.sin = to_device(backend, DType::f32, table.positions, table.half_dim, table.sin.data());
  }
  return rope;
}

}  // namespace gptq
