// Weights that stay codes.
#include <algorithm>

#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/packed.h"

namespace gptq::cuda {
namespace {

// A packed weight [outputs, inputs] in device memory.
struct Codes {
  const uint32_t* words;
  int64_t word_stride;
  AnyRows scales;
  const uint8_t* zeros;
  int64_t zero_stride, group_size, outputs, inputs;
};

Codes codes_of(const PackedWeight& weight) {
  return {static_cast<const uint32_t*>(weight.words.data),
          weight.words.stride,
          any_rows(weight.scales),
          static_cast<const uint8_t*>(weight.zeros.data),
          weight.zeros.stride,
          weight.group_size,
          weight.outputs(),
          weight.inputs()};
}

template <int kBits>
__device__ int code_at(const Codes& c, int64_t output, int64_t input) {
  const int64_t bit = input * kBits, word = bit / 32;
  const int shift = static_cast<int>(bit % 32);
  uint32_t code = c.words[word * c.word_stride + output] >> shift;
  if (shift + kBits > 32) code |= c.words[(word + 1) * c.word_stride + output] << (32 - shift);
  return static_cast<int>(code & ((1U << kBits) - 1));
}

// A thread for each element; neighbours have neighbouring outputs, whose words are neighbours. Limited by memory.
template <int kBits>
__global__ void dequantize_kernel(Codes c, AnyRows w) {
  const int64_t output = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (output >= c.outputs) return;
  for (int64_t input = blockIdx.y; input < c.inputs; input += gridDim.y) {
    const int64_t group = input / c.group_size;
    const int value = code_at<kBits>(c, output, input) - c.zeros[group * c.zero_stride + output];
    w.set(output, input, c.scales.get(group, output) * static_cast<float>(value));
  }
}

// A block has a row of x and kOutputs outputs; thread z of an output takes every kSlices-th run of 32 inputs, which are
// whole words. Sums are in f32, in a fixed order. Limited by reading the words.
constexpr int kOutputs = 32, kSlices = 8, kRun = 32;

template <int kBits>
__global__ void __launch_bounds__(kOutputs* kSlices)
    packed_linear_kernel(AnyRows x, Codes c, AnyRows bias, bool has_bias, AnyRows y) {
  __shared__ float sums[kSlices][kOutputs];
  const int own = static_cast<int>(threadIdx.x), slice = static_cast<int>(threadIdx.y);
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kOutputs + own, row = blockIdx.y;
  float sum = 0;
  for (int64_t first = slice * kRun; output < c.outputs && first < c.inputs; first += kSlices * kRun) {
    const int64_t end = min(first + kRun, c.inputs);
    for (int64_t k = first; k < end;) {
      const int64_t group = k / c.group_size, group_end = min(end, (group + 1) * c.group_size);
      const float scale = c.scales.get(group, output);
      const int zero = c.zeros[group * c.zero_stride + output];
      for (; k < group_end; ++k)
        sum = fmaf(x.get(row, k), scale * static_cast<float>(code_at<kBits>(c, output, k) - zero), sum);
    }
  }
  sums[slice][own] = sum;
  __syncthreads();
  if (slice > 0 || output >= c.outputs) return;
  sum = has_bias ? bias.get(0, output) : 0;
  for (int i = 0; i < kSlices; ++i) sum += sums[i][own];
  y.set(row, output, sum);
}

void dequantize_packed(Gpu& gpu, const ops::DequantizePacked& op) {
  if (op.w.empty()) return;
  constexpr int64_t kMostHigh = 65535;
  const dim3 blocks(static_cast<unsigned>((op.w.rows + kThreads - 1) / kThreads),
                    static_cast<unsigned>(std::min(op.w.cols, kMostHigh)));
  const int bits = op.weight.bits;
  const auto kernel = bits == 2   ? dequantize_kernel<2>
                      : bits == 3 ? dequantize_kernel<3>
                      : bits == 4 ? dequantize_kernel<4>
                                  : dequantize_kernel<8>;
  kernel<<<blocks, kThreads, 0, gpu.stream()>>>(codes_of(op.weight), any_rows(op.w));
}

void packed_linear(Gpu& gpu, const ops::PackedLinear& op) {
  if (op.y.empty()) return;
  const dim3 blocks(static_cast<unsigned>((op.y.cols + kOutputs - 1) / kOutputs), static_cast<unsigned>(op.y.rows)),
      threads(kOutputs, kSlices);
  const int bits = op.weight.bits;
  const auto kernel = bits == 2   ? packed_linear_kernel<2>
                      : bits == 3 ? packed_linear_kernel<3>
                      : bits == 4 ? packed_linear_kernel<4>
                                  : packed_linear_kernel<8>;
  kernel<<<blocks, threads, 0, gpu.stream()>>>(any_rows(op.x), codes_of(op.weight), any_rows(op.bias), !op.bias.empty(),
                                               any_rows(op.y));
}

}  // namespace

void add_packed_ops(GpuOps& table) {
  table.add<dequantize_packed>();
  table.add<packed_linear>();
}

}  // namespace gptq::cuda
