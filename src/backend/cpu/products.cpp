#include "backend/cpu/products.h"

#include <algorithm>

namespace gptq::cpu {
namespace {

// Dwords of a A operand that stay in a core's L2, and B panels per pass over one that does not.
constexpr int64_t kCachedDwords = int64_t{1} << 18, kPanelsAtOnce = 8;

// A step of tile registers is a cache line.
constexpr int64_t kStepDwords = PanelProduct::kLineDwords;

// Dwords from one row of a A panel to the next: no multiple of 2 KiB, at which rows would share cache sets.
int64_t padded_stride(int64_t dwords) { return dwords % 512 == 0 ? dwords + 16 : dwords; }

void store_tile(const CpuBackend& cpu, const float* c, int64_t c_stride, const float* bias, MatrixView y) {
  if (y.dtype == DType::f32) {
    const bool is_there = y.row<float>(0) == c;
    if (!is_there || bias != nullptr)
      cpu.products.epilogue_f32(c, c_stride, y.rows, y.cols, bias, y.row<float>(0), y.stride);
  } else if (y.dtype == DType::bf16) {
    cpu.products.epilogue_bf16(c, c_stride, y.rows, y.cols, bias, y.row<uint16_t>(0), y.stride);
  } else {
    float row[64];
    for (int64_t r = 0; r < y.rows; ++r) {
      cpu.products.epilogue_f32(c + r * c_stride, c_stride, 1, y.cols, bias, row, y.cols);
      cpu.finish_row(row, y, r);
    }
  }
}

}  // namespace

const ProductKernel& product_kernel(const CpuBackend& cpu, ConstMatrixView a, ConstMatrixView b) {
  return are_bf16(a, b) && cpu.products.multiply_bf16() ? cpu.products.bf16 : cpu.products.f32;
}

const ProductKernel& columns_kernel(const CpuBackend& cpu, ConstMatrixView a, ConstMatrixView b) {
  return are_bf16(a, b) && cpu.products.multiply_bf16() ? cpu.products.bf16_columns : cpu.products.f32_columns;
}

bool is_finite(const CpuBackend& cpu, ConstMatrixView x, int64_t row) {
  if (x.dtype == DType::f32) return cpu.kernels.all_finite(x.row<float>(row), x.cols);
  const uint16_t exponent = x.dtype == DType::bf16 ? 0x7f80 : 0x7c00;  // all ones if infinite or NaN
  return cpu.kernels.all_finite_16(x.row<uint16_t>(row), x.cols, exponent);
}

ConstMatrixView wide_rows(const CpuBackend& cpu, ConstMatrixView x, float* wide) {
  for (int64_t r = 0; r < x.rows; ++r) cpu.as_f32(x, r, wide + r * x.cols);
  return {wide, DType::f32, x.rows, x.cols};
}

void pack_row(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, int64_t row, int64_t dwords,
              uint32_t* to) {
  const MatrixView copy(to, dtype_of(kernel), 1, x.cols);
  if (x.dtype == copy.dtype)
    std::memcpy(to, dwords_at(x, row), static_cast<size_t>(row_bytes(x)));
  else if (copy.dtype == DType::f32)
    cpu.as_f32(x, row, copy.row<float>(0));
  else
    cpu.finish_row(x.row<float>(row), copy, 0);
  std::memset(static_cast<std::byte*>(copy.data) + row_bytes(copy), 0,
              static_cast<size_t>(4 * dwords - row_bytes(copy)));
}

void pack_b(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel) {
  const int64_t dwords = kernel.dwords_of(w.cols);
  const bool is_narrow = !is_packable(kernel, w.dtype);
  ScratchPool::Lease lease = cpu.scratch.borrow(is_narrow ? w.size() : 0);
  if (is_narrow) w = wide_rows(cpu, w, lease.take(w.size()));
  cpu.products.pack_rows(w.data, stride_bytes(w), w.rows, row_bytes(w), dwords, kernel.cols, panel, kernel.cols);
}

void pack_columns(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, int64_t dwords, int64_t width,
                  uint32_t* panel) {
  if (kernel.k_per_dword == 2)
    cpu.products.pack_column_pairs(x.row<uint16_t>(0), x.stride, x.rows, x.cols, dwords, width, panel);
  else
    cpu.products.pack_columns(x.row<uint32_t>(0), x.stride, x.rows, x.cols, dwords, width, panel);
}

void pack_weight(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView w, uint32_t* packed) {
  const int64_t panels = pieces_of(w.rows, kernel.cols), panel_dwords = kernel.cols * kernel.dwords_of(w.cols);
  const EvenPartition packing(panels, int64_t{4} * cpu.pool.size(), 1);
  cpu.pool.for_each(packing.count, [&](int64_t task) {
    for (int64_t panel = packing.start(task); panel < packing.start(task + 1); ++panel) {
      const int64_t row = panel * kernel.cols;
      pack_b(cpu, kernel, w.row_range(row, std::min(kernel.cols, w.rows - row)), packed + panel * panel_dwords);
    }
  });
}

APanels pack_a(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, uint32_t* room) {
  const int64_t dwords = kernel.dwords_of(x.cols), stride = padded_stride(dwords);
  const bool is_aligned = reinterpret_cast<uintptr_t>(x.data) % 4 == 0 && stride_bytes(x) % 4 == 0;
  const bool fills_dwords = is_packable(kernel, x.dtype) && row_bytes(x) == 4 * dwords && is_aligned;
  if (!kernel.tile_layout) {
    if (fills_dwords && x.rows % kernel.rows == 0 && stride_bytes(x) % 2048 != 0)
      return {dwords_at(x, 0), stride_bytes(x) / 4, kernel.step, kernel.rows * stride_bytes(x) / 4};
    for (int64_t r = 0; r < x.rows; ++r) pack_row(cpu, kernel, x, r, dwords, room + r * stride);
    for (int64_t r = x.rows; r < rounded_up(x.rows, kernel.rows); ++r) std::fill_n(room + r * stride, dwords, 0U);
    return {room, stride, kernel.step, kernel.rows * stride};
  }
  uint32_t* const row = room + rounded_up(x.rows, kernel.rows) * dwords;  // after the panels
  for (int64_t r = 0; r < rounded_up(x.rows, kernel.rows); ++r) {
    const uint32_t* from = row;
    if (r >= x.rows)
      std::fill_n(row, dwords, 0U);
    else if (fills_dwords)
      from = dwords_at(x, r);
    else
      pack_row(cpu, kernel, x, r, dwords, row);
    uint32_t* to = room + r / kernel.rows * kernel.rows * dwords + r % kernel.rows * kStepDwords;
    for (int64_t k = 0; k < dwords; k += kStepDwords)
      std::memcpy(to + k * kernel.rows, from + k, kStepDwords * sizeof(uint32_t));
  }
  return {room, kStepDwords, kStepDwords * kernel.rows, kernel.rows * dwords};
}

int64_t a_room(const ProductKernel& kernel, ConstMatrixView x) {
  return (rounded_up(x.rows, kernel.rows) + 1) * padded_stride(kernel.dwords_of(x.cols));
}

void multiply_panels(CpuBackend& cpu, const ProductKernel& kernel, int64_t dwords, const APanels& a, const uint32_t* b,
                     const float* bias, MatrixView y) {
  const Partition cut = k_blocks(kernel, dwords);
  const int64_t panels = pieces_of(y.cols, kernel.cols), tiles = pieces_of(y.rows, kernel.rows),
                tile_size = kernel.rows * kernel.cols;
  // `room` holds tiles that cannot be summed in y: one, or all of some panels where a sum has several k-blocks. Left
  // panels in the AMX tile layout that do not fit in L2 are read once for several B panels.
  const bool is_interrupted = cut.count > 1, stays = kernel.tile_layout && y.rows * dwords <= kCachedDwords;
  const int64_t at_once = !is_interrupted ? panels : stays ? 1 : std::min(panels, kPanelsAtOnce);
  const int64_t room_size = tile_size * (is_interrupted ? tiles * at_once : 1);
  ScratchPool::Lease lease = cpu.scratch.borrow(room_size);
  float* const room = lease.take(room_size);
  const auto columns_of = [&](int64_t k_block, int64_t j) {
    return b + (j * dwords + cut.start(k_block)) * kernel.cols;
  };
  const auto multiply_block = [&](int64_t k_block, int64_t j, const uint32_t* next) {
    const int64_t first = cut.start(k_block), count = std::max<int64_t>(cut.length(k_block), 0);
    const int64_t col = j * kernel.cols, cols = std::min(kernel.cols, y.cols - col);
    const auto a_panel = [&](int64_t i) { return a.data + i * a.panel_stride + first / kernel.step * a.step_stride; };
    // Each tile prefetches its share of the next B panel.
    const int64_t b_lines = pieces_of(kernel.cols, tiles);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = i * kernel.rows, rows = std::min(kernel.rows, y.rows - row);
      const bool is_whole = rows == kernel.rows && cols == kernel.cols, in_place = is_whole && y.dtype == DType::f32;
      const bool is_last = k_block + 1 >= cut.count;
      float* c =
          in_place ? y.row<float>(row) + col : room + (is_interrupted ? (j % at_once * tiles + i) * tile_size : 0);
      const int64_t c_stride = in_place ? y.stride : kernel.cols;
      const float* biases = bias == nullptr ? nullptr : bias + col;
      const PanelProduct product{
          .dwords = count,
          .a = a_panel(i),
          .row_stride = a.row_stride,
          .step_stride = a.step_stride,
          .b = columns_of(k_block, j),
          .prefetch_l1 = {.data = a_panel((i + 1) % tiles), .lines = kernel.rows, .line_stride = a.row_stride},
          .prefetch_l2 = PanelProduct::dense(next + i * b_lines * count, b_lines)};
      if (is_last && is_whole && y.dtype == DType::bf16 && kernel.multiply_to_bf16 != nullptr) {
        kernel.multiply_to_bf16(product, k_block > 0 ? c : nullptr, c_stride, biases, y.row<uint16_t>(row) + col,
                                y.stride);
        continue;
      }
      kernel.multiply(product, c, c_stride, k_block > 0);
      if (is_last) store_tile(cpu, c, c_stride, biases, y.block(row, rows, col, cols));
    }
  };
  for (int64_t first = 0; first < panels; first += at_once) {
    for (int64_t k_block = 0; k_block < std::max<int64_t>(cut.count, 1); ++k_block) {
      const int64_t end = std::min(panels, first + at_once), last_block = cut.count - 1;
      for (int64_t j = first; j < end; ++j) {
        // The prefetch past the last panel is harmless.
        multiply_block(k_block, j,
                       j + 1 < end            ? columns_of(k_block, j + 1)
                       : k_block < last_block ? columns_of(k_block + 1, first)
                                              : columns_of(0, end));
      }
    }
  }
}

}  // namespace gptq::cpu
