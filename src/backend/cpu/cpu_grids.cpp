// Ops on grids and codes. A task of find_grid or quantize_columns is as many rows as a SIMD register has lanes.
#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace gptq {

void CpuBackend::find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                           MatrixView scales, MatrixView zeros) {
  if (scales.empty()) return;
  std::vector<float> weights(static_cast<size_t>(w.cols), 1.0F);
  const float* weight = importance.empty() ? weights.data() : importance.row<float>(0);
  const int64_t tiles = (w.rows + kernels_.lanes - 1) / kernels_.lanes;
  pool_.for_each(tiles, [&](int64_t tile) {
    const int64_t first = tile * kernels_.lanes, rows = std::min(kernels_.lanes, w.rows - first);
    ScratchPool::Lease lease = scratch_.borrow(kernels_.lanes * group_size);
    float* scratch = lease.take(kernels_.lanes * group_size);
    for (int64_t group = 0; group < scales.cols; ++group) {
      const int64_t column = group * group_size;
      kernels_.find_grid(rows, {w.row<float>(first) + column, w.stride}, weight + column, group_size, search.bits,
                         search.symmetric, search.candidates, search.shrink_step, search.norm,
                         scales.row<float>(first) + group, scales.stride, zeros.row<uint8_t>(first) + group,
                         zeros.stride, scratch);
    }
  });
}

void CpuBackend::quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                                  std::span<const int32_t> groups, const Grid& grid, MatrixView codes,
                                  MatrixView errors, MatrixView loss) {
  if (w.empty()) return;
  const int64_t tiles = (w.rows + kernels_.lanes - 1) / kernels_.lanes, n = w.cols;
  pool_.for_each(tiles, [&](int64_t tile) {
    const int64_t first = tile * kernels_.lanes, rows = std::min(kernels_.lanes, w.rows - first);
    ScratchPool::Lease lease = scratch_.borrow(2 * kernels_.lanes * n);
    const GridRows grid_rows = {grid.scales.row<float>(first),
                                grid.zeros.row<uint8_t>(first),
                                grid.scales.stride,
                                grid.zeros.stride,
                                groups.data(),
                                grid.bits};
    kernels_.quantize_columns(rows, n, {w.row<float>(first), w.stride}, {feedback.row<float>(first), feedback.stride},
                              {factor.row<float>(0), factor.stride}, grid_rows, codes.row<uint8_t>(first), codes.stride,
                              errors.row<float>(first), errors.stride, loss.row<float>(first), loss.stride,
                              lease.take(2 * kernels_.lanes * n));
  });
}

void CpuBackend::round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) {
  for_rows(w.rows, w.cols, 0, [&](int64_t row, float*) {
    kernels_.round_columns(w.cols, w.row<float>(row), grid.scales.row<float>(row), grid.zeros.row<uint8_t>(row),
                           groups.data(), grid.bits, codes.row<uint8_t>(row));
  });
}

void CpuBackend::dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) {
  for_rows(w.rows, w.cols, 1, [&](int64_t row, float* scratch) {
    float* values = begin_row(w, row, scratch);
    kernels_.dequantize(w.cols, codes.row<uint8_t>(row), grid.scales.row<float>(row), grid.zeros.row<uint8_t>(row),
                        groups.data(), values);
    finish_row(values, w, row);
  });
}

}  // namespace gptq
