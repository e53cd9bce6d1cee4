// Sums of matrices: a thread per element, or per eight of them. Limited by memory bandwidth.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/rows.cuh"
#include "ops/sums.h"

namespace gptq::cuda {
namespace {

struct Add {
  AnyRows from, to;
  float factor;
  __device__ void operator()(int64_t r, int64_t c) const { to.set(r, c, fmaf(factor, from.get(r, c), to.get(r, c))); }
};

template <typename T>
struct AddWide {
  Rows<const T> from;
  Rows<T> to;
  float factor;
  __device__ void operator()(int64_t r, int64_t c) const {
    const Pack<T> in = load_pack(from.row(r) + c);
    Pack<T> out = load_pack(to.row(r) + c);
#pragma unroll
    for (int i = 0; i < kWide; ++i) store(&out.values[i], fmaf(factor, widened(in.values[i]), widened(out.values[i])));
    store_pack(to.row(r) + c, out);
  }
};

struct AddRows {
  AnyRows from, to;
  const int32_t* ids;
  const float* weights;
  __device__ void operator()(int64_t r, int64_t c) const {
    to.set(ids[r], c, fmaf(weights[r], from.get(r, c), to.get(ids[r], c)));
  }
};

template <typename T>
struct AddRowsWide {
  Rows<const T> from;
  Rows<T> to;
  const int32_t* ids;
  const float* weights;
  __device__ void operator()(int64_t r, int64_t c) const {
    T* const place = to.row(ids[r]) + c;
    const float weight = weights[r];
    const Pack<T> in = load_pack(from.row(r) + c);
    Pack<T> out = load_pack(place);
#pragma unroll
    for (int i = 0; i < kWide; ++i) store(&out.values[i], fmaf(weight, widened(in.values[i]), widened(out.values[i])));
    store_pack(place, out);
  }
};

void add(ConstMatrixView x, float factor, MatrixView y, cudaStream_t stream) {
  if (!in_packs({x, y})) return launch_places(y.rows, y.cols, 1, stream, Add{any_rows(x), any_rows(y), factor});
  with_element(y.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(y.rows, y.cols, kWide, stream, AddWide<T>{rows_of<T>(x), rows_of<T>(y), factor});
  });
}

void add_op(Gpu& gpu, const ops::Add& op) { add(op.x, op.factor, op.y, gpu.stream()); }

void add_rows(Gpu& gpu, const ops::AddRows& op) {
  const Matrix device_ids = gpu.on_device(op.ids), device_weights = gpu.on_device(op.weights);
  const auto* ids = device_ids.row<int32_t>(0);
  const auto* weights = static_cast<const float*>(device_weights.view().data);
  if (!in_packs({op.x, op.y})) {
    return launch_places(op.x.rows, op.x.cols, 1, gpu.stream(), AddRows{any_rows(op.x), any_rows(op.y), ids, weights});
  }
  with_element(op.y.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(op.x.rows, op.x.cols, kWide, gpu.stream(),
                  AddRowsWide<T>{rows_of<T>(op.x), rows_of<T>(op.y), ids, weights});
  });
}

}  // namespace

void add_bias(ConstMatrixView bias, MatrixView y, cudaStream_t stream) {
  add({bias.data, bias.dtype, y.rows, y.cols, 0}, 1, y, stream);  // stride 0: the same row for all
}

void add_sum_ops(GpuOps& table) {
  table.add<add_op>();
  table.add<add_rows>();
}

}  // namespace gptq::cuda
