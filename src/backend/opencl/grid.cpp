// Grids: the search for them, and values on them.
#include "ops/grid.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

// Search of kernels/grid.cl.
struct Search {
  cl_float top, shrink_step, norm;
  cl_int candidates, symmetric, signed_scales, search_zeros, group_size;
};

float top_of(int bits) { return static_cast<float>((1 << bits) - 1); }

void find_grid(Xpu& xpu, const ops::FindGrid& op) {
  if (op.scales.empty()) return;
  const GridSearch& how = op.search;
  const Search search = {top_of(how.bits), how.shrink_step,   how.norm,         how.candidates,
                         how.symmetric,    how.signed_scales, how.search_zeros, static_cast<cl_int>(op.group_size)};
  const int64_t rows = op.scales.rows, groups = op.scales.cols;
  if (how.candidates == 1 && (how.symmetric || !how.search_zeros)) {
    return xpu.launch({"grid", "find_widest_grid"}, elements(rows, groups), op.w, op.scales, op.zeros, search, rows,
                      groups);
  }
  constexpr int64_t kThreads = 64;
  xpu.launch({"grid", "find_grid"}, opencl::Grid{{groups, rows, 1}, {kThreads, 1, 1}}, op.w, op.importance, op.scales,
             op.zeros, search);
}

void round_columns(Xpu& xpu, const ops::RoundColumns& op) {
  const Matrix groups = xpu.on_device(op.groups);
  xpu.launch({"grid", "round_columns"}, elements(op.w.rows, op.w.cols), op.w, groups, op.grid.scales, op.grid.zeros,
             top_of(op.grid.bits), op.codes, op.w.rows, op.w.cols);
}

void dequantize(Xpu& xpu, const ops::Dequantize& op) {
  const Matrix groups = xpu.on_device(op.groups);
  xpu.launch({"grid", "dequantize"}, elements(op.w.rows, op.w.cols), op.codes, groups, op.grid.scales, op.grid.zeros,
             op.w, op.w.rows, op.w.cols);
}

}  // namespace

void add_grid_ops(XpuOps& table) {
  table.add<find_grid>();
  table.add<round_columns>();
  table.add<dequantize>();
}

}  // namespace gptq::opencl
