// Ops that work element by element, or need a sum over each row; norms.cu has the norms.
#include <cstdint>

#include "backend/cuda/kernels.h"
#include "backend/cuda/rows.cuh"

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

// Between f32 and a narrower type, the one way or the other.
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

// The position of row r in its sequence, of which the last one that starts at or before r is its own.
__device__ int64_t position_of(int64_t r, const int64_t* offsets, int64_t sequences) {
  int64_t low = 0, high = sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (offsets[middle] <= r ? low : high) = middle;
  }
  return r - offsets[low];
}

// Where the halves of pair i of a head are: `pairs` apart, or neighbours.
template <RotaryOrder kOrder>
__device__ int64_t first_of(int64_t i) {
  return kOrder == RotaryOrder::halves ? i : 2 * i;
}
template <RotaryOrder kOrder>
__device__ int64_t second_of(int64_t i, int64_t pairs) {
  return kOrder == RotaryOrder::halves ? i + pairs : 2 * i + 1;
}

// A thread rotates one pair; (r, c) counts a row's pairs over all its heads.
template <RotaryOrder kOrder>
struct Rope {
  AnyRows x;
  Rows<const float> cosines, sines;
  const int64_t* offsets;
  int64_t sequences, head_dim, pairs;
  __device__ void operator()(int64_t r, int64_t c) const {
    const int64_t position = position_of(r, offsets, sequences), head = c / pairs, i = c - head * pairs;
    const int64_t first = head * head_dim + first_of<kOrder>(i), second = head * head_dim + second_of<kOrder>(i, pairs);
    const float a = x.get(r, first), b = x.get(r, second);
    const float cosine = cosines.row(position)[i], sine = sines.row(position)[i];
    x.set(r, first, a * cosine - b * sine);
    x.set(r, second, b * cosine + a * sine);
  }
};

// The same for eight neighbouring pairs, which are two packs: their first halves and their second ones, or four pairs
// and four more.
template <typename T, RotaryOrder kOrder>
struct RopeWide {
  Rows<T> x;
  Rows<const float> cosines, sines;
  const int64_t* offsets;
  int64_t sequences, head_dim, pairs;
  __device__ void operator()(int64_t r, int64_t c) const {
    const int64_t position = position_of(r, offsets, sequences), head = c / pairs, i = c - head * pairs;
    T* const first = x.row(r) + head * head_dim + first_of<kOrder>(i);
    T* const second = first + (kOrder == RotaryOrder::halves ? pairs : kWide);
    Pack<T> pack[2] = {load_pack(first), load_pack(second)};
    const Pack<float> cosine = load_pack(cosines.row(position) + i), sine = load_pack(sines.row(position) + i);
#pragma unroll
    for (int k = 0; k < kWide; ++k) {
      constexpr bool kHalves = kOrder == RotaryOrder::halves;
      T& a = kHalves ? pack[0].values[k] : pack[k / 4].values[k % 4 * 2];
      T& b = kHalves ? pack[1].values[k] : pack[k / 4].values[k % 4 * 2 + 1];
      const float u = widened(a), v = widened(b);
      store(&a, u * cosine.values[k] - v * sine.values[k]);
      store(&b, v * cosine.values[k] + u * sine.values[k]);
    }
    store_pack(first, pack[0]);
    store_pack(second, pack[1]);
  }
};

__device__ float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + expf(-x));
    case Activation::gelu:
      return 0.5F * x * erfcf(-x * 0.70710678118654752F);
    case Activation::gelu_tanh:  // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
      return x / (1 + expf(-1.5957691216057308F * (x + 0.044715F * x * x * x)));
    case Activation::relu:
      return x < 0 ? 0 : x;  // NaN stays
    case Activation::relu_squared:
      return x < 0 ? 0 : x * x;
    case Activation::clamped_swiglu: {
      const float bounded = x > 7 ? 7 : x;
      return bounded / (1 + expf(-1.702F * bounded));
    }
  }
  return 0;
}

// x between -bound and bound; NaN stays.
__device__ float clamped(float x, float bound) { return x < -bound ? -bound : x > bound ? bound : x; }

__device__ float gated(Activation activation, float gate, float up) {
  return activated(activation, gate) * (activation == Activation::clamped_swiglu ? clamped(up, 7) + 1 : up);
}

// Without `up`, that is 1.
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

__device__ float capped(Cap kind, float bound, float x) {
  return kind == Cap::hard ? clamped(x, bound) : bound * tanhf(x / bound);
}

struct CapEach {
  AnyRows x;
  Cap kind;
  float bound;
  __device__ void operator()(int64_t r, int64_t c) const { x.set(r, c, capped(kind, bound, x.get(r, c))); }
};

template <typename T>
struct CapWide {
  Rows<T> x;
  Cap kind;
  float bound;
  __device__ void operator()(int64_t r, int64_t c) const {
    Pack<T> pack = load_pack(x.row(r) + c);
#pragma unroll
    for (int i = 0; i < kWide; ++i) store(&pack.values[i], capped(kind, bound, widened(pack.values[i])));
    store_pack(x.row(r) + c, pack);
  }
};

struct RowNorms {
  AnyRows x;
  Rows<float> norms;
  int64_t cols;
  __device__ void operator()(int64_t r) const {
    float sum = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += x.get(r, c) * x.get(r, c);
    sum = over_block(sum, Sum());
    if (threadIdx.x == 0) *norms.row(r) += sum;
  }
};

// The maximum of a row, and log(sum(exp(x))), for all threads.
struct Softmax {
  float top, log_sum;
};
__device__ Softmax softmax_of(const AnyRows& x, int64_t r, int64_t n) {
  float top = -INFINITY;
  for (int64_t j = threadIdx.x; j < n; j += kThreads) top = fmaxf(top, x.get(r, j));
  top = over_block(top, Maximum());
  float sum = 0;
  for (int64_t j = threadIdx.x; j < n; j += kThreads) sum += expf(x.get(r, j) - top);
  return {top, top + logf(over_block(sum, Sum()))};
}

// Places are compared as floats, which hold them exactly below 2^24: no vocabulary is larger.
__device__ float first_place(const AnyRows& x, int64_t r, int64_t n, float value) {
  float place = INFINITY;
  for (int64_t j = n - 1 - threadIdx.x; j >= 0; j -= kThreads) {
    if (x.get(r, j) == value) place = static_cast<float>(j);
  }
  return -over_block(-place, Maximum());
}

struct TokenLosses {
  AnyRows logits;
  const int32_t* targets;
  Rows<float> losses;
  int64_t n;
  __device__ void operator()(int64_t r) const {
    const Softmax softmax = softmax_of(logits, r, n);
    if (threadIdx.x == 0) *losses.row(r) = softmax.log_sum - logits.get(r, targets[r]);
  }
};

struct CompareLogits {
  AnyRows p, q;
  Rows<float> divergence, same_top;
  int64_t n;
  __device__ void operator()(int64_t r) const {
    const Softmax of_p = softmax_of(p, r, n), of_q = softmax_of(q, r, n);
    float sum = 0;
    for (int64_t j = threadIdx.x; j < n; j += kThreads) {
      const float log_p = p.get(r, j) - of_p.log_sum;
      sum += expf(log_p) * (log_p - (q.get(r, j) - of_q.log_sum));
    }
    sum = over_block(sum, Sum());
    const float top_p = first_place(p, r, n, of_p.top), top_q = first_place(q, r, n, of_q.top);
    if (threadIdx.x == 0) {
      *divergence.row(r) = sum;
      *same_top.row(r) = top_p == top_q ? 1.0F : 0.0F;
    }
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

template <RotaryOrder kOrder>
void rope_in(ConstMatrixView cos, ConstMatrixView sin, const int64_t* offsets, int64_t sequences, int64_t head_dim,
             MatrixView x, cudaStream_t stream) {
  const int64_t all_pairs = x.cols / head_dim * cos.cols;
  const Rows<const float> cosines = rows_of<float>(cos), sines = rows_of<float>(sin);
  if (!in_packs({x}) || !in_packs({cos, sin}) || head_dim % kWide != 0) {
    return launch_places(x.rows, all_pairs, 1, stream,
                         Rope<kOrder>{any_rows(x), cosines, sines, offsets, sequences, head_dim, cos.cols});
  }
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(x.rows, all_pairs, kWide, stream,
                  RopeWide<T, kOrder>{rows_of<T>(x), cosines, sines, offsets, sequences, head_dim, cos.cols});
  });
}

// Exists to be asked for.
__global__ void probe_kernel() {}

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

void add(ConstMatrixView x, float factor, MatrixView y, cudaStream_t stream) {
  if (!in_packs({x, y})) return launch_places(y.rows, y.cols, 1, stream, Add{any_rows(x), any_rows(y), factor});
  with_element(y.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(y.rows, y.cols, kWide, stream, AddWide<T>{rows_of<T>(x), rows_of<T>(y), factor});
  });
}

void add_bias(ConstMatrixView bias, MatrixView y, cudaStream_t stream) {
  add({bias.data, bias.dtype, y.rows, y.cols, 0}, 1, y, stream);  // one row, over and over
}

void gather_rows(ConstMatrixView table, const int32_t* ids, MatrixView y, cudaStream_t stream) {
  launch_places(y.rows, y.cols, 1, stream, GatherRows{any_rows(table), any_rows(y), ids});
}

void gather_columns(ConstMatrixView x, const int32_t* ids, MatrixView y, cudaStream_t stream) {
  with_bits(x.dtype, [&](auto bits) {
    using T = decltype(bits);
    launch_places(y.rows, y.cols, 1, stream, GatherColumns<T>{rows_of<T>(x), rows_of<T>(y), ids});
  });
}

void add_rows(ConstMatrixView x, const int32_t* ids, const float* weights, MatrixView y, cudaStream_t stream) {
  if (!in_packs({x, y}))
    return launch_places(x.rows, x.cols, 1, stream, AddRows{any_rows(x), any_rows(y), ids, weights});
  with_element(y.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(x.rows, x.cols, kWide, stream, AddRowsWide<T>{rows_of<T>(x), rows_of<T>(y), ids, weights});
  });
}

void rope(ConstMatrixView cos, ConstMatrixView sin, const int64_t* offsets, int64_t sequences, RotaryOrder order,
          int64_t head_dim, MatrixView x, cudaStream_t stream) {
  if (order == RotaryOrder::halves)
    return rope_in<RotaryOrder::halves>(cos, sin, offsets, sequences, head_dim, x, stream);
  rope_in<RotaryOrder::interleaved>(cos, sin, offsets, sequences, head_dim, x, stream);
}

void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y, cudaStream_t stream) {
  const bool has_up = !up.empty();
  if (!in_packs({gate, has_up ? up : gate, y})) {
    return launch_places(y.rows, y.cols, 1, stream,
                         Gate{any_rows(gate), any_rows(up), any_rows(y), has_up, activation});
  }
  with_element(y.dtype, [&](auto element) {
    using T = decltype(element);
    const Rows<const T> from = rows_of<T>(gate), factors = rows_of<T>(up);
    if (has_up)
      launch_places(y.rows, y.cols, kWide, stream, GateWide<T, true>{from, factors, rows_of<T>(y), activation});
    else
      launch_places(y.rows, y.cols, kWide, stream, GateWide<T, false>{from, factors, rows_of<T>(y), activation});
  });
}

void cap(Cap kind, float bound, MatrixView x, cudaStream_t stream) {
  if (!in_packs({x})) return launch_places(x.rows, x.cols, 1, stream, CapEach{any_rows(x), kind, bound});
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(x.rows, x.cols, kWide, stream, CapWide<T>{rows_of<T>(x), kind, bound});
  });
}

void add_row_norms(ConstMatrixView x, MatrixView norms, cudaStream_t stream) {
  launch_rows(x.rows, stream, RowNorms{any_rows(x), rows_of<float>(norms), x.cols});
}

void token_losses(ConstMatrixView logits, const int32_t* targets, MatrixView losses, cudaStream_t stream) {
  launch_rows(logits.rows, stream, TokenLosses{any_rows(logits), targets, rows_of<float>(losses), logits.cols});
}

void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top,
                    cudaStream_t stream) {
  launch_rows(p.rows, stream,
              CompareLogits{any_rows(p), any_rows(q), rows_of<float>(divergence), rows_of<float>(same_top), p.cols});
}

}  // namespace gptq::cuda
