// Symmetric matrices, by rows or tiles.
#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

// A task is a square tile below the diagonal, or on it.
void mirror(CpuBackend& cpu, const ops::Mirror& op) {
  constexpr int64_t kTile = 64;
  const int64_t tiles = (op.h.rows + kTile - 1) / kTile;
  cpu.pool.for_each(tiles * tiles, [&](int64_t task) {
    const int64_t i0 = task / tiles * kTile, j0 = task % tiles * kTile;
    if (j0 > i0) return;
    for (int64_t i = i0; i < std::min(op.h.rows, i0 + kTile); ++i) {
      for (int64_t j = j0; j < std::min(i, j0 + kTile); ++j) op.h.row<float>(j)[i] = op.h.row<float>(i)[j];
    }
  });
}

void permute_symmetric(CpuBackend& cpu, const ops::PermuteSymmetric& op) {
  cpu.for_rows(op.y.rows, op.y.cols, 0, [&](int64_t i, float*) {
    float* row = op.y.row<float>(i);
    const int64_t a = op.order[i];
    const float* stored = op.h.row<float>(a);
    for (int64_t j = 0; j <= i; ++j) {
      const int64_t b = op.order[j];
      row[j] = b <= a ? stored[b] : op.h.row<float>(b)[a];
    }
    row[i] += op.damp;
    std::fill(row + i + 1, row + op.y.cols, 0.0F);
  });
}

}  // namespace

void add_symmetric_ops(CpuOps& table) {
  table.add<mirror>();
  table.add<permute_symmetric>();
}

}  // namespace gptq::cpu
