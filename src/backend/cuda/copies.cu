// Copies, conversions and gathers: a thread per element, or per eight of them. Limited by memory bandwidth.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/rows.cuh"
#include "base/rounding.h"
#include "ops/copies.h"

namespace gptq::cuda {
namespace {

template <typename T>
struct Copy {
  Rows<const T> from;
  Rows<T> to;
  __device__ void operator()(int64_t r, int64_t c) const { to.row(r)[c] = from.row(r)[c]; }
};

template <typename T>
struct GatherColumns {
  Rows<const T> from;
  Rows<T> to;
  const int32_t* ids;
  __device__ void operator()(int64_t r, int64_t c) const { to.row(r)[c] = from.row(r)[ids[c]]; }
};

struct GatherRows {
  AnyRows from, to;
  const int32_t* ids;
  __device__ void operator()(int64_t r, int64_t c) const { to.set(r, c, from.get(ids[r], c)); }
};

struct Convert {
  AnyRows from, to;
  __device__ void operator()(int64_t r, int64_t c) const { to.set(r, c, from.get(r, c)); }
};

// From f32 to a narrower type, or back.
template <typename From, typename To>
struct ConvertWide {
  Rows<const From> from;
  Rows<To> to;
  __device__ void operator()(int64_t r, int64_t c) const {
    const Pack<From> in = load_pack(from.row(r) + c);
    Pack<To> out;
#pragma unroll
    for (int i = 0; i < kWide; ++i) store(&out.values[i], widened(in.values[i]));
    store_pack(to.row(r) + c, out);
  }
};

// Calls body(T{}) with an unsigned type of the dtype's size.
template <typename Body>
void with_bits(DType dtype, Body body) {
  if (size_of(dtype) == 4) body(uint32_t{});
  if (size_of(dtype) == 2) body(uint16_t{});
  if (size_of(dtype) == 1) body(uint8_t{});
}

template <typename From, typename To>
void convert_wide(ConstMatrixView x, MatrixView y, cudaStream_t stream) {
  launch_places(y.rows, y.cols, kWide, stream, ConvertWide<From, To>{rows_of<From>(x), rows_of<To>(y)});
}

// probe() asks for its attributes.
__global__ void probe_kernel() {}

void gather_rows(Gpu& gpu, const ops::GatherRows& op) {
  const Matrix ids = gpu.on_device(op.ids);
  launch_places(op.y.rows, op.y.cols, 1, gpu.stream(),
                GatherRows{any_rows(op.table), any_rows(op.y), ids.row<int32_t>(0)});
}

void gather_columns(Gpu& gpu, const ops::GatherColumns& op) {
  const Matrix ids = gpu.on_device(op.ids);
  with_bits(op.x.dtype, [&](auto bits) {
    using T = decltype(bits);
    launch_places(op.y.rows, op.y.cols, 1, gpu.stream(),
                  GatherColumns<T>{rows_of<T>(op.x), rows_of<T>(op.y), ids.row<int32_t>(0)});
  });
}

void convert_op(Gpu& gpu, const ops::Convert& op) { convert(op.x, op.y, gpu.stream()); }

void clear_op(Gpu& gpu, const ops::Clear& op) { clear(op.y, gpu.stream()); }

}  // namespace

cudaError_t probe() {
  cudaFuncAttributes attributes = {};
  return cudaFuncGetAttributes(&attributes, probe_kernel);
}

void copy(ConstMatrixView x, MatrixView y, cudaStream_t stream) {
  with_bits(x.dtype, [&](auto bits) {
    using T = decltype(bits);
    launch_places(y.rows, y.cols, 1, stream, Copy<T>{rows_of<T>(x), rows_of<T>(y)});
  });
}

void convert(ConstMatrixView x, MatrixView y, cudaStream_t stream) {
  if (x.dtype == y.dtype) return copy(x, y, stream);
  if (in_packs({x}) && in_packs({y})) {
    if (x.dtype == DType::bf16 && y.dtype == DType::f32) return convert_wide<__nv_bfloat16, float>(x, y, stream);
    if (x.dtype == DType::f16 && y.dtype == DType::f32) return convert_wide<__half, float>(x, y, stream);
    if (x.dtype == DType::f32 && y.dtype == DType::bf16) return convert_wide<float, __nv_bfloat16>(x, y, stream);
    if (x.dtype == DType::f32 && y.dtype == DType::f16) return convert_wide<float, __half>(x, y, stream);
  }
  launch_places(y.rows, y.cols, 1, stream, Convert{any_rows(x), any_rows(y)});
}

void clear(MatrixView y, cudaStream_t stream) {
  if (y.empty()) return;
  const size_t element = size_of(y.dtype);
  cudaMemset2DAsync(y.data, static_cast<size_t>(y.stride) * element, 0, static_cast<size_t>(y.cols) * element,
                    static_cast<size_t>(y.rows), stream);
}

Matrix aligned_copy(Gpu& gpu, ConstMatrixView x, DType dtype) {
  Matrix result(gpu.memory(), dtype, x.rows, rounded_up(x.cols, 8));
  convert(x, result.view().col_range(0, x.cols), gpu.stream());
  return result;
}

void add_copy_ops(GpuOps& table) {
  table.add<gather_rows>();
  table.add<gather_columns>();
  table.add<convert_op>();
  table.add<clear_op>();
}

}  // namespace gptq::cuda
