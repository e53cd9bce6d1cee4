// Ops that work row by row or element by element. All of them are limited by memory bandwidth: where dtypes are the
// same and alignment allows, a thread handles 8 neighbouring elements in one access; otherwise one element, whatever
// its type. Rows are the work of a block where they need a sum.
#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace gptq::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 20;
constexpr int kWide = 8;

// A strided matrix of elements T.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* row(int64_t r) const { return data + r * stride; }
};
template <typename T>
Rows<T> rows_of(MatrixView m) {
  return {static_cast<T*>(m.data), m.stride};
}
template <typename T>
Rows<const T> rows_of(ConstMatrixView m) {
  return {static_cast<const T*>(m.data), m.stride};
}

// Neighbouring elements, moved in one or two accesses of 16 bytes.
template <typename T>
struct alignas(16) Pack {
  T values[kWide];
};
template <typename T>
__device__ Pack<T> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T>*>(from);
}
template <typename T>
__device__ void store_pack(T* to, const Pack<T>& pack) {
  *reinterpret_cast<Pack<T>*>(to) = pack;
}

// Whether all have one dtype and rows that are whole packs.
bool in_packs(std::initializer_list<ConstMatrixView> views) {
  return std::all_of(views.begin(), views.end(), [&](const ConstMatrixView& m) {
    return m.dtype == views.begin()->dtype && reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.stride % kWide == 0 &&
           m.cols % kWide == 0;
  });
}

// Elementwise: thread i of the grid handles place i, i + threads, ... of the matrix [rows, cols / each].
template <typename Body>
__global__ void for_places(int64_t rows, int64_t places, int each, Body body) {
  const int64_t total = rows * places, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int64_t r = i / places;
    body(r, (i - r * places) * each);
  }
}
template <typename Body>
void launch_places(int64_t rows, int64_t cols, int each, cudaStream_t stream, Body body) {
  const int64_t places = cols / each;
  if (rows == 0 || places == 0) return;
  const int64_t blocks = std::min<int64_t>(kMostBlocks, (rows * places + kThreads - 1) / kThreads);
  for_places<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(rows, places, each, body);
}

// A row is the work of one block; the body is called by all its threads.
template <typename Body>
__global__ void for_rows(Body body) {
  body(static_cast<int64_t>(blockIdx.x));
}
template <typename Body>
void launch_rows(int64_t rows, cudaStream_t stream, Body body) {
  if (rows > 0) for_rows<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(body);
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Maximum {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// The result of `combine` over all threads of the block, in each of them; the order is fixed.
template <typename Combine>
__device__ float over_block(float value, Combine combine) {
  __shared__ float of_warp[kThreads / 32];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) value = combine(value, __shfl_xor_sync(0xffffffffU, value, lane));
  __syncthreads();  // what an earlier call left has been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) value = combine(value, of_warp[warp]);
  return value;
}

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

struct RmsNorm {
  AnyRows x, weight, y;
  int64_t cols;
  float eps;
  __device__ void operator()(int64_t r) const {
    float sum = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += x.get(r, c) * x.get(r, c);
    const float factor = 1 / sqrtf(over_block(sum, Sum()) / static_cast<float>(cols) + eps);
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) y.set(r, c, x.get(r, c) * factor * weight.get(0, c));
  }
};

template <typename T>
struct RmsNormWide {
  Rows<const T> x, weight;
  Rows<T> y;
  int64_t cols;
  float eps;
  __device__ void operator()(int64_t r) const {
    float sum = 0;
    for (int64_t c = threadIdx.x * kWide; c < cols; c += kThreads * kWide) {
      const Pack<T> in = load_pack(x.row(r) + c);
#pragma unroll
      for (int i = 0; i < kWide; ++i) sum += widened(in.values[i]) * widened(in.values[i]);
    }
    const float factor = 1 / sqrtf(over_block(sum, Sum()) / static_cast<float>(cols) + eps);
    for (int64_t c = threadIdx.x * kWide; c < cols; c += kThreads * kWide) {
      const Pack<T> in = load_pack(x.row(r) + c), scales = load_pack(weight.row(0) + c);
      Pack<T> out;
#pragma unroll
      for (int i = 0; i < kWide; ++i) store(&out.values[i], widened(in.values[i]) * factor * widened(scales.values[i]));
      store_pack(y.row(r) + c, out);
    }
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

// A thread rotates one pair; (r, c) counts a row's pairs over all its heads.
struct Rope {
  AnyRows x;
  Rows<const float> cosines, sines;
  const int64_t* offsets;
  int64_t sequences, head_dim, pairs;
  __device__ void operator()(int64_t r, int64_t c) const {
    const int64_t position = position_of(r, offsets, sequences), head = c / pairs, i = c - head * pairs;
    const int64_t first = head * head_dim + i, second = first + pairs;
    const float a = x.get(r, first), b = x.get(r, second);
    const float cosine = cosines.row(position)[i], sine = sines.row(position)[i];
    x.set(r, first, a * cosine - b * sine);
    x.set(r, second, b * cosine + a * sine);
  }
};

// The same for eight neighbouring pairs.
template <typename T>
struct RopeWide {
  Rows<T> x;
  Rows<const float> cosines, sines;
  const int64_t* offsets;
  int64_t sequences, head_dim, pairs;
  __device__ void operator()(int64_t r, int64_t c) const {
    const int64_t position = position_of(r, offsets, sequences), head = c / pairs, i = c - head * pairs;
    T* const first = x.row(r) + head * head_dim + i;
    const Pack<T> a = load_pack(first), b = load_pack(first + pairs);
    const Pack<float> cosine = load_pack(cosines.row(position) + i), sine = load_pack(sines.row(position) + i);
    Pack<T> to_first, to_second;
#pragma unroll
    for (int k = 0; k < kWide; ++k) {
      const float u = widened(a.values[k]), v = widened(b.values[k]);
      store(&to_first.values[k], u * cosine.values[k] - v * sine.values[k]);
      store(&to_second.values[k], v * cosine.values[k] + u * sine.values[k]);
    }
    store_pack(first, to_first);
    store_pack(first + pairs, to_second);
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
  }
  return 0;
}

struct Gate {
  AnyRows gate, up, y;
  Activation activation;
  __device__ void operator()(int64_t r, int64_t c) const {
    y.set(r, c, activated(activation, gate.get(r, c)) * up.get(r, c));
  }
};

template <typename T>
struct GateWide {
  Rows<const T> gate, up;
  Rows<T> y;
  Activation activation;
  __device__ void operator()(int64_t r, int64_t c) const {
    const Pack<T> a = load_pack(gate.row(r) + c), b = load_pack(up.row(r) + c);
    Pack<T> out;
#pragma unroll
    for (int i = 0; i < kWide; ++i)
      store(&out.values[i], activated(activation, widened(a.values[i])) * widened(b.values[i]));
    store_pack(y.row(r) + c, out);
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

void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y, cudaStream_t stream) {
  if (x.cols == 0) return;
  if (!in_packs({x, weight, y})) {
    return launch_rows(x.rows, stream, RmsNorm{any_rows(x), any_rows(weight), any_rows(y), x.cols, eps});
  }
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    launch_rows(x.rows, stream, RmsNormWide<T>{rows_of<T>(x), rows_of<T>(weight), rows_of<T>(y), x.cols, eps});
  });
}

void rope(ConstMatrixView cos, ConstMatrixView sin, const int64_t* offsets, int64_t sequences, int64_t head_dim,
          MatrixView x, cudaStream_t stream) {
  const int64_t all_pairs = x.cols / head_dim * cos.cols;
  if (!in_packs({x}) || !in_packs({cos, sin}) || head_dim % kWide != 0) {
    return launch_places(
        x.rows, all_pairs, 1, stream,
        Rope{any_rows(x), rows_of<float>(cos), rows_of<float>(sin), offsets, sequences, head_dim, cos.cols});
  }
  with_element(x.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(
        x.rows, all_pairs, kWide, stream,
        RopeWide<T>{rows_of<T>(x), rows_of<float>(cos), rows_of<float>(sin), offsets, sequences, head_dim, cos.cols});
  });
}

void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y, cudaStream_t stream) {
  if (!in_packs({gate, up, y})) {
    return launch_places(y.rows, y.cols, 1, stream, Gate{any_rows(gate), any_rows(up), any_rows(y), activation});
  }
  with_element(y.dtype, [&](auto element) {
    using T = decltype(element);
    launch_places(y.rows, y.cols, kWide, stream,
                  GateWide<T>{rows_of<T>(gate), rows_of<T>(up), rows_of<T>(y), activation});
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
