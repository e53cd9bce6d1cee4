// Products with weights. Weights are packed a few MiB at a time, then tasks multiply tiles.
#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "backend/cpu/gates.h"
#include "backend/cpu/products.h"

namespace gptq::cpu {
namespace {

// B panels per epilogue call.
constexpr int64_t kCachedPanels = 2;

struct TileShape {
  int64_t rows, cols;
};

// A panels of about 256 rows, which stay in a core's cache together with a B panel. Smaller ones, and a cut across the
// columns, where there would be too few tasks.
TileShape tile_shape(const CpuBackend& cpu, int64_t m, int64_t n, const ProductKernel& kernel) {
  const int64_t wanted = cpu.pool.size() == 1 ? 1 : 4 * cpu.pool.size();
  TileShape shape{std::max<int64_t>(256 / kernel.rows, 1) * kernel.rows, n};
  const auto tasks = [&] { return pieces_of(m, shape.rows) * pieces_of(n, shape.cols); };
  while (tasks() < wanted && shape.cols > 8 * kernel.cols) shape.cols = (shape.cols + 1) / 2;
  while (tasks() < wanted && shape.rows > 2 * kernel.rows) shape.rows = (shape.rows + 1) / 2;
  while (tasks() < wanted && shape.cols > kernel.cols) shape.cols = (shape.cols + 1) / 2;
  return shape;
}

// One of several weights with the same number of rows, and its bias.
struct Side {
  ConstMatrixView w, bias;
};

// x w' + bias of each side: packs the weights and cuts the result into tasks, each of which calls
// body(first row, rows, first column, columns, multiply), with multiply(side, first column, to).
template <typename Body>
void for_products(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, std::span<const Side> sides,
                  const Body& body) {
  const auto count = std::ssize(sides);
  const int64_t n_all = sides[0].w.rows, panel_dwords = kernel.cols * kernel.dwords_of(x.cols);
  const int64_t at_once = std::max<int64_t>(1, kPackedDwords / count / std::max<int64_t>(panel_dwords, 1));
  std::vector<std::vector<float>> biases;
  for (const Side& side : sides) biases.push_back(cpu.widened(side.bias));
  for (int64_t first = 0; first < n_all; first += at_once * kernel.cols) {
    const int64_t n = std::min(at_once * kernel.cols, n_all - first),
                  side_dwords = pieces_of(n, kernel.cols) * panel_dwords;
    ScratchPool::Lease lease = cpu.scratch.borrow(count * side_dwords);
    auto* const packed = lease.take_dwords(count * side_dwords);
    for (int64_t side = 0; side < count; ++side)
      pack_weight(cpu, kernel, sides[static_cast<size_t>(side)].w.row_range(first, n), packed + side * side_dwords);
    const TileShape shape = tile_shape(cpu, x.rows, n, kernel);
    const EvenPartition rows(x.rows, rounded_up(pieces_of(x.rows, shape.rows), cpu.pool.size()), kernel.rows);
    const Partition cols(n, shape.cols, kernel.cols);
    cpu.pool.for_each(rows.count * cols.count, [&](int64_t task) {
      const int64_t i = task % rows.count, j = task / rows.count;
      const ConstMatrixView part = x.row_range(rows.start(i), rows.length(i));
      ScratchPool::Lease room = cpu.scratch.borrow(a_room(kernel, part));
      const APanels a = pack_a(cpu, kernel, part, room.take_dwords(a_room(kernel, part)));
      // Columns [col, col + to.cols) of a side; col is a multiple of kernel.cols away from the task's first one.
      const auto multiply = [&](int64_t side, int64_t col, MatrixView to) {
        const std::vector<float>& of_side = biases[static_cast<size_t>(side)];
        multiply_panels(cpu, kernel, kernel.dwords_of(x.cols), a,
                        packed + side * side_dwords + (col - first) / kernel.cols * panel_dwords,
                        of_side.empty() ? nullptr : of_side.data() + col, to);
      };
      cpu.products.configure_tiles();
      body(rows.start(i), rows.length(i), first + cols.start(j), cols.length(j), multiply);
      cpu.products.release_tiles();
    });
  }
}

// The same in bf16: calls finish(row, first column, columns, values of each side), a few columns at a time, while they
// are in the cache.
template <typename Finish>
void multiply_in_cache(CpuBackend& cpu, ConstMatrixView x, std::span<const Side> sides, const Finish& finish) {
  const ProductKernel& kernel = cpu.products.bf16;
  const auto count = std::ssize(sides);
  for_products(cpu, kernel, x, sides,
               [&](int64_t first, int64_t rows, int64_t col, int64_t cols, const auto& multiply) {
                 const int64_t width = kCachedPanels * kernel.cols, room_dwords = rows * width / kernel.k_per_dword,
                               end = col + cols;
                 ScratchPool::Lease room = cpu.scratch.borrow(count * room_dwords, 2);
                 float* const places[2] = {room.take(room_dwords), count > 1 ? room.take(room_dwords) : nullptr};
                 for (; col < end; col += width) {
                   MatrixView values[2];
                   for (int64_t side = 0; side < count; ++side) {
                     values[side] = {places[side], DType::bf16, rows, std::min(width, end - col)};
                     multiply(side, col, values[side]);
                   }
                   for (int64_t row = 0; row < rows; ++row) {
                     finish(first + row, col, values[0].cols, values[0].row<uint16_t>(row),
                            count > 1 ? values[1].row<uint16_t>(row) : nullptr);
                   }
                 }
               });
}

void linear(CpuBackend& cpu, const ops::Linear& op) {
  if (op.y.empty()) return;
  const Side sides[] = {{op.w, op.bias}};
  if (cpu.fuses_linears(op.x.dtype) && are_bf16(op.w, op.y)) {
    return multiply_in_cache(cpu, op.x, sides,
                             [&](int64_t row, int64_t col, int64_t count, const uint16_t* values, const uint16_t*) {
                               std::memcpy(op.y.row<uint16_t>(row) + col, values, static_cast<size_t>(2 * count));
                             });
  }
  for_products(cpu, product_kernel(cpu, op.x, op.w), op.x, sides,
               [&](int64_t row, int64_t rows, int64_t col, int64_t cols, const auto& multiply) {
                 multiply(0, col, op.y.block(row, rows, col, cols));
               });
}

void gated_linear(CpuBackend& cpu, const ops::GatedLinear& op) {
  if (op.y.empty()) return;
  const bool all_bf16 = are_bf16(op.x, op.weights.gate) && are_bf16(op.y, op.weights.up);
  if (!cpu.fuses_linears(op.x.dtype) || !all_bf16 || op.weights.up.empty()) return op.compose(cpu);
  const auto kernel = gate_bf16(cpu, op.weights.activation);
  const Side sides[] = {{op.weights.gate, op.weights.gate_bias}, {op.weights.up, op.weights.up_bias}};
  multiply_in_cache(cpu, op.x, sides,
                    [&](int64_t row, int64_t col, int64_t count, const uint16_t* gate, const uint16_t* up) {
                      kernel(gate, up, op.y.row<uint16_t>(row) + col, count);
                    });
}

void add_linear(CpuBackend& cpu, const ops::AddLinear& op) {
  if (op.y.empty()) return;
  if (!cpu.fuses_linears(op.x.dtype) || op.w.dtype != DType::bf16 || op.y.dtype != DType::f32) return op.compose(cpu);
  const Side sides[] = {{op.w, op.bias}};
  multiply_in_cache(cpu, op.x, sides,
                    [&](int64_t row, int64_t col, int64_t count, const uint16_t* values, const uint16_t*) {
                      cpu.kernels.add_bf16(values, op.factor, op.y.row<float>(row) + col, count);
                    });
}

// Bytes of packed weights.
int64_t scratch_of(const CpuBackend& cpu, const OpCall& call, int64_t sides) {
  const auto [m, n, k, unused] = call.sizes;
  const ProductKernel& kernel = product_kernel(cpu, call.dtype);
  return kDwordBytes *
         std::min(sides * b_dwords(kernel, n, k), std::max(kPackedDwords, sides * b_dwords(kernel, 1, k)));
}

}  // namespace

void add_linear_ops(CpuOps& table) {
  const CpuOps::Scratch of_one = [](const CpuBackend& cpu, const OpCall& call) { return scratch_of(cpu, call, 1); };
  const CpuOps::Scratch of_two = [](const CpuBackend& cpu, const OpCall& call) { return scratch_of(cpu, call, 2); };
  table.add<linear>(of_one);
  table.add<gated_linear>(of_two);
  table.add<add_linear>(of_one);
}

}  // namespace gptq::cpu
