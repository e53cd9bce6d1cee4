// Functions of single elements: a thread per element, or per eight of them. Limited by memory bandwidth.
#include <cstdint>

#include "backend/cuda/activations.cuh"
#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/gates.h"

namespace gptq::cuda {
namespace {

// x between -bound and bound; NaN stays.
__device__ float clamped(float x, float bound) { return x < -bound ? -bound : x > bound ? bound : x; }

__device__ float gated(Activation activation, float gate, float up) {
  return activated(activation, gate) * (activation == Activation::clamped_swiglu ? clamped(up, 7) + 1 : up);
}

// `up` is 1 where there is none.
struct Gate {
  AnyRows gate, up, y;
  bool has_up;
  Activation activation;
  __device__ void operator()(int64_t r, int64_t c) const {
    y.set(r, c, gated(activation, gate.get(r, c), has_up ? up.get(r, c) : 1));
  }
};

template <typename T, bool kHasUp>
struct GateWide {
  Rows<const T> gate, up;
  Rows<T> y;
  Activation activation;
  __device__ void operator()(int64_t r, int64_t c) const {
    const Pack<T> a = load_pack(gate.row(r) + c);
    Pack<T> b, out;
    if constexpr (kHasUp) b = load_pack(up.row(r) + c);
#pragma unroll
    for (int i = 0; i < kWide; ++i)
      store(&out.values[i], gated(activation, widened(a.values[i]), kHasUp ? widened(b.values[i]) : 1.0F));
    store_pack(y.row(r) + c, out);
  }
};

__device__ float capped(ops::Cap::Kind kind, float bound, float x) {
  return kind == ops::Cap::hard ? clamped(x, bound) : bound * tanhf(x / bound);
}

struct CapEach {
  AnyRows x;
  ops::Cap::Kind kind;
  float bound;
  __device__ void operator()(int64_t r, int64_t c) const { x.set(r, c, capped(kind, bound, x.get(r, c))); }
};

template <typename T>
struct CapWide {
  Rows<T> x;
  ops::Cap::Kind kind;
  float bound;
  __device__ void operator()(int64_t r, int64_t c) const {
    Pack<T> pack = load_pack(x.row(r) + c);
#pragma unroll
    for (int i = 0; i < kWide; ++i) store(&pack.values[i], capped(kind, bound, widened(pack.values[i])));
    store_pack(x.row(r) + c, pack);
  }
};

struct XieluEach {
  AnyRows x, alphas, y;
  __device__ void operator()(int64_t r, int64_t c) const {
    const float value = x.get(r, c);
    const float alpha = activated(Activation::softplus, alphas.get(value > 0 ? 0 : 1, 0));
    const float curve =
        value > 0 ? alpha * value * value : (0.5F + alpha) * (expm1f(value < -1e-6F ? value : -1e-6F) - value);
    y.set(r, c, 0.5F * value + curve);
  }
};

void xielu(Gpu& gpu, const ops::Xielu& op) {
  launch_places(op.y.rows, op.y.cols, 1, gpu.stream(), XieluEach{any_rows(op.x), any_rows(op.alphas), any_rows(op.y)});
}

void gate(Gpu& gpu, const ops::Gate& op) {
  const bool has_up = !op.up.empty();
  if (!in_packs({op.gate, has_up ? op.up : op.gate, op.y})) {
    return launch_places(op.y.rows, op.y.cols, 1, gpu.stream(),
                         Gate{any_rows(op.gate), any_rows(op.up), any_rows(op.y), has_up, op.activation});
  }
  with_element(op.y.dtype, [&](auto element) {
    using T = decltype(element);
    const Rows<const T> from = rows_of<T>(op.gate), factors = rows_of<T>(op.up);
    if (has_up)
      launch_places(op.y.rows, op.y.cols, kWide, gpu.stream(),
                    GateWide<T, true>{from, factors, rows_of<T>(op.y), op.activation});
    else
      launch_places(op.y.rows, op.y.cols, kWide, gpu.stream(),
                    GateWide<T, false>{from, factors, rows_of<T>(op.y), op.activation});
  });
}

void cap(Gpu& gpu, const ops::Cap& op) {
  if (!in_packs({op.x}))
    return launch_places(op.x.rows, op.x.cols, 1, gpu.stream(), CapEach{any_rows(op.x), op.kind, op.bound});
  with_element(op.x.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(op.x.rows, op.x.cols, kWide, gpu.stream(), CapWide<T>{rows_of<T>(op.x), op.kind, op.bound});
  });
}

}  // namespace

void add_gate_ops(GpuOps& table) {
  table.add<gate>();
  table.add<cap>();
  table.add<xielu>();
}

}  // namespace gptq::cuda
