// The inner loops of the CPU backend: one thread, raw pointers, f32 in and out. kernels.cpp is compiled once per
// instruction set; each copy fills one table, chosen at run time.
#pragma once

#include <cstdint>

namespace gptq {

// Rows of a float matrix; row r starts at data + r * stride.
struct FloatRows {
  const float* data = nullptr;
  int64_t stride = 0;
};

struct GridRows {
  const float* scales = nullptr;
  const uint8_t* zeros = nullptr;
  int64_t scale_stride = 0, zero_stride = 0;
  const int32_t* groups = nullptr;  // groups[k]: grid column of column k
  int bits = 4;
};

// The parameters of a GridSearch.
struct GridRules {
  int bits, candidates;
  bool symmetric, signed_scales, search_zeros;
  float shrink_step, norm;
};

struct NarrowKernels;
struct ProductKernels;

// y = activation(x) * up, in f32 or bf16.
template <typename Element>
struct GateKernels {
  using Gate = void (*)(const Element* x, const Element* up, Element* y, int64_t n);
  Gate silu, gelu, gelu_tanh, relu, relu_squared, clamped_swiglu, quick_gelu, sigmoid, softplus, identity;
};

// State of a row of softmax(x) y whose x comes in pieces (online softmax; Dao et al. 2022, FlashAttention).
struct RunningSoftmax {
  float top = 0, weight = 0;  // the largest x so far, and sum exp(x - top)
  float* sums = nullptr;      // [width] sum exp(x - top) y
  int64_t width = 0;
};

// The states of a selective scan, [state, channels]: rows of `stride` floats.
struct ScanStates {
  const float* rates = nullptr;  // the logarithms of the decays of a step of 1, at most 0
  float* states = nullptr;
  int64_t stride = 0, state = 0;
};
// A token of it: steps, x and skip have an element for each channel, b and c for each row of the states.
struct ScanToken {
  const float *steps = nullptr, *x = nullptr, *skip = nullptr, *b = nullptr, *c = nullptr;
};

struct Kernels {
  const char* isa;
  const ProductKernels* products;
  const NarrowKernels* narrow;
  // The most rows that one call of a grid kernel takes; each SIMD lane is a row.
  int64_t lanes;

  void (*f16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*bf16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*f32_to_f16)(const float* x, uint16_t* y, int64_t n);
  void (*f32_to_bf16)(const float* x, uint16_t* y, int64_t n);

  void (*add)(const float* x, float factor, float* y, int64_t n);  // y += factor * x
  void (*add_bf16)(const uint16_t* x, float factor, float* y, int64_t n);
  void (*add_products)(const float* x, const float* w, float* y, int64_t n);                 // y += x * w
  void (*scale)(const float* x, float factor, float* y, int64_t n);                          // y = x * factor
  void (*scale_by)(const float* x, const float* weight, float factor, float* y, int64_t n);  // y = x * factor * weight
  void (*scale_by_bf16)(const float* x, const float* weight, float factor, uint16_t* y, int64_t n);
  void (*add_line)(float* x, float start, float slope, int64_t n);  // x_i += slope * (start + i), n <= 2^31
  void (*centre)(const float* x, float* y, int64_t n);              // y = x - mean(x)
  float (*sum_of_squares)(const float* x, int64_t n);
  float (*product)(const float* x, const float* y, int64_t n);  // sum x * y
  bool (*all_finite)(const float* x, int64_t n);
  bool (*all_finite_16)(const uint16_t* x, int64_t n, uint16_t exponent);  // no x has all bits of `exponent`
  void (*rotate)(const float* cos, const float* sin, float* low, float* high, int64_t n);  // RoPE of one head
  void (*rotate_bf16)(const float* cos, const float* sin, uint16_t* low, uint16_t* high, int64_t n);
  void (*rotate_pairs)(const float* cos, const float* sin, float* x, int64_t n);  // RoPE of neighbouring elements
  GateKernels<float> gates;
  GateKernels<uint16_t> gates_bf16;

  void (*softplus)(float* x, int64_t n);  // x = log(1 + exp(x)), or x beyond 20; n is a multiple of 16
  // states = exp(rates steps) states + b (steps x), y = c' states + skip x; n is a multiple of 16.
  void (*scan)(const ScanStates& states, const ScanToken& token, float* y, int64_t n);

  void (*hard_cap)(float bound, float* x, int64_t n);  // x = clamp(x, -bound, bound)
  void (*soft_cap)(float bound, float* x, int64_t n);  // x = bound tanh(x / bound)

  float (*maximum)(const float* x, int64_t n);  // n > 0
  // x = exp(factor * x - top), with `top` the largest so far; rescales the row's weight and sums to the new top and
  // adds to the weight. factor > 0; n and width are multiples of 16. soften_bf16 writes bf16 over the first half of x,
  // with a relative error of about 2^-16 before rounding; its weight sums the unrounded values.
  void (*soften)(float* x, int64_t n, float factor, RunningSoftmax& row);
  void (*soften_bf16)(float* x, int64_t n, float factor, RunningSoftmax& row);
  // sum exp(x - top)
  double (*sum_of_exponentials)(const float* x, float top, int64_t n);
  // KL divergence of two rows of logits from their log-sum-exps: sum exp(p - log_p) * ((p - log_p) - (q - log_q))
  double (*divergence)(const float* p, float log_p, const float* q, float log_q, int64_t n);

  // The ops of these names for up to `lanes` rows. find_grid computes one group; `scratch` holds lanes * group_size
  // floats, and importance is never null.
  void (*find_grid)(int64_t rows, FloatRows w, const float* importance, int64_t group_size, const GridRules& rules,
                    float* scales, int64_t scale_stride, uint8_t* zeros, int64_t zero_stride, float* scratch);
  // `scratch` holds 2 * lanes * n floats; loss [rows, 1].
  void (*quantize_columns)(int64_t rows, int64_t n, FloatRows w, FloatRows feedback, FloatRows factor, GridRows grid,
                           uint8_t* codes, int64_t code_stride, float* errors, int64_t error_stride, float* loss,
                           int64_t loss_stride, float* scratch);
  void (*round_columns)(int64_t n, const float* w, const float* scales, const uint8_t* zeros, const int32_t* groups,
                        int bits, uint8_t* codes);  // one row
  void (*dequantize)(int64_t n, const uint8_t* codes, const float* scales, const uint8_t* zeros, const int32_t* groups,
                     float* w);  // one row
};

// The table for the fastest instruction set of this processor. The environment variable GPTQ_CPU_ISA (baseline, avx2,
// avx512, avx512bf16, amx; on ARM baseline, neonbf16) overrides the choice, for tests. Throws InputError for a set that
// this build or processor lacks.
const Kernels& kernels_for_this_cpu();

}  // namespace gptq
