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

// Codes that start and end with a word, and so lie in one group: those of a word, or of three with 3 bits.
template <int kBits>
struct Run {
  static constexpr int kWords = kBits == 3 ? 3 : 1, kCodes = 32 * kWords / kBits;

  // Code i of these words as a float, less zero_and_base - 2^23. A float of 2^23 has the code in its last bits.
  __device__ static float value(const uint32_t (&words)[kWords], int i, float zero_and_base) {
    const int bit = i * kBits, word = bit / 32, shift = bit % 32;
    uint32_t code = words[word] >> shift;
    if (shift + kBits > 32) code |= words[word + 1 < kWords ? word + 1 : word] << (32 - shift);
    return __uint_as_float(0x4B000000U | (code & ((1U << kBits) - 1))) - zero_and_base;
  }
};
constexpr float kBase = 8388608;  // 2^23

// A block has a row of x and kOutputs outputs. Slice s of its threads takes the s-th part of the runs of each kTile
// inputs, which are in shared memory as f32. Sums are in f32, in an order that depends on the shape alone. Limited by
// reading the words.
constexpr int kTile = 4096, kAhead = 8;  // inputs, and runs whose words are read before they are needed

template <int kBits, int kOutputs>
__global__ void __launch_bounds__(kThreads)
    packed_linear_kernel(AnyRows x, Codes c, AnyRows bias, bool has_bias, AnyRows y) {
  using Run = gptq::cuda::Run<kBits>;
  constexpr int kSlices = kThreads / kOutputs;
  __shared__ float inputs[kTile], sums[kSlices][kOutputs];
  const int thread = static_cast<int>(threadIdx.x), own = thread % kOutputs, slice = thread / kOutputs;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kOutputs + own, row = blockIdx.y;
  float sum = 0;
  for (int64_t tile = 0; tile < c.inputs; tile += kTile) {
    const int count = static_cast<int>(min(int64_t{kTile}, c.inputs - tile)), runs = count / Run::kCodes;
    __syncthreads();
    for (int i = thread; i < count; i += kThreads) inputs[i] = x.get(row, tile + i);
    __syncthreads();
    if (output >= c.outputs) continue;
    int64_t group_end = 0;
    float scale = 0, zero = 0, of_group = 0;
    const int end = runs * (slice + 1) / kSlices;
    for (int first = runs * slice / kSlices; first < end; first += kAhead) {
      uint32_t words[kAhead][Run::kWords];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int64_t word = (tile / Run::kCodes + min(first + a, end - 1)) * Run::kWords;
#pragma unroll
        for (int i = 0; i < Run::kWords; ++i) words[a][i] = c.words[(word + i) * c.word_stride + output];
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        if (first + a >= end) break;
        const int in_tile = (first + a) * Run::kCodes;
        if (tile + in_tile >= group_end) {
          sum = fmaf(scale, of_group, sum);
          const int64_t group = (tile + in_tile) / c.group_size;
          group_end = (group + 1) * c.group_size;
          scale = c.scales.get(group, output);
          zero = kBase + static_cast<float>(c.zeros[group * c.zero_stride + output]);
          of_group = 0;
        }
#pragma unroll
        for (int i = 0; i < Run::kCodes; ++i)
          of_group = fmaf(inputs[in_tile + i], Run::value(words[a], i, zero), of_group);
      }
    }
    sum = fmaf(scale, of_group, sum);
  }
  sums[slice][own] = sum;
  __syncthreads();
  if (slice > 0 || output >= c.outputs) return;
  sum = has_bias ? bias.get(0, output) : 0;
  for (int i = 0; i < kSlices; ++i) sum += sums[i][own];
  y.set(row, output, sum);
}

template <int kBits, int kOutputs>
void launch_packed_linear(Gpu& gpu, const ops::PackedLinear& op) {
  const dim3 blocks(static_cast<unsigned>((op.y.cols + kOutputs - 1) / kOutputs), static_cast<unsigned>(op.y.rows));
  packed_linear_kernel<kBits, kOutputs><<<blocks, kThreads, 0, gpu.stream()>>>(
      any_rows(op.x), codes_of(op.weight), any_rows(op.bias), !op.bias.empty(), any_rows(op.y));
}
// Few outputs a block where there are few: a GPU has thousands of warps to keep busy.
template <int kBits>
void launch_packed_linear(Gpu& gpu, const ops::PackedLinear& op) {
  constexpr int64_t kBlocks = 1024;
  if (op.y.cols >= 32 * kBlocks) return launch_packed_linear<kBits, 32>(gpu, op);
  if (op.y.cols >= 16 * kBlocks) return launch_packed_linear<kBits, 16>(gpu, op);
  launch_packed_linear<kBits, 8>(gpu, op);
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
  const int bits = op.weight.bits;
  const auto launch = bits == 2   ? launch_packed_linear<2>
                      : bits == 3 ? launch_packed_linear<3>
                      : bits == 4 ? launch_packed_linear<4>
                                  : launch_packed_linear<8>;
  launch(gpu, op);
}

}  // namespace

void add_packed_ops(GpuOps& table) {
  table.add<dequantize_packed>();
  table.add<packed_linear>();
}

}  // namespace gptq::cuda
