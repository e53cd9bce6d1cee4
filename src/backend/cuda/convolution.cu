// Convolutions over tokens. Limited by memory bandwidth: a thread takes 4 channels through a run of tokens, with their
// taps and the inputs of the tokens before in registers. Shapes that do not allow that are computed element by element.
#include <algorithm>
#include <cstdint>

#include "backend/cuda/activations.cuh"
#include "backend/cuda/gpu.h"
#include "backend/cuda/rows.cuh"
#include "ops/convolution.h"

namespace gptq::cuda {
namespace {

// What a thread computes at most: taps and channels, whose state stays in registers, and a run of tokens, of which it
// reads some before it needs them.
constexpr int kMostTaps = 4, kChannels = 4, kRun = 32, kAhead = 4;

struct Taps {
  Rows<const float> weight;
  const float* bias;  // or null
  const int64_t* offsets;
  int64_t sequences, taps;
  Activation activation;
  bool in_one_access;  // kMostTaps, in rows of 16 bytes

  // Tokens that row r reads: itself and those before it.
  __device__ int64_t count(int64_t r) const {
    const int64_t position = position_of(r, offsets, sequences);
    return position + 1 < taps ? position + 1 : taps;
  }
  __device__ float first(int64_t c) const { return bias == nullptr ? 0 : bias[c]; }
  __device__ float of(int64_t c, int64_t back) const { return weight.row(c)[taps - 1 - back]; }
  // All of a channel, in one access where there are kMostTaps; zeros for those that are not there.
  __device__ void read(int64_t c, float (&all)[kMostTaps]) const {
    if (in_one_access) {
      const float4 four = *reinterpret_cast<const float4*>(weight.row(c));
      all[0] = four.w, all[1] = four.z, all[2] = four.y, all[3] = four.x;
    } else {
#pragma unroll
      for (int back = 0; back < kMostTaps; ++back) all[back] = back < taps ? of(c, back) : 0;
    }
  }
};

struct Convolution {
  AnyRows x, y;
  Taps taps;
  __device__ void operator()(int64_t r, int64_t c) const {
    float sum = taps.first(c);
    const int64_t count = taps.count(r);
    for (int64_t back = 0; back < count; ++back) sum = fmaf(taps.of(c, back), x.get(r - back, c), sum);
    y.set(r, c, activated(taps.activation, sum));
  }
};

// silu or nothing, which is what models have here. Wrong by 2^-21 of it; x is divided by at most 2^126.
template <Activation kActivation>
__device__ float quickly_activated(float x) {
  static_assert(kActivation == Activation::silu || kActivation == Activation::identity);
  return kActivation == Activation::silu ? __fdividef(x, 1 + power_of_two(-kLog2E * x)) : x;
}

// Neighbouring channels of a token, read and written in one access.
template <typename T>
struct alignas(kChannels * sizeof(T)) Channels {
  T values[kChannels];
};

// Rows kRun * r and after, columns c to c + 3. kAhead rows are read before the first of them is needed.
template <typename T, Activation kActivation>
struct ConvolutionRun {
  Rows<const T> x;
  Rows<T> y;
  Taps taps;
  int64_t tokens;

  __device__ void operator()(int64_t run, int64_t c) const {
    float weights[kMostTaps][kChannels], bias[kChannels];
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      bias[i] = taps.first(c + i);
      float of_channel[kMostTaps];
      taps.read(c + i, of_channel);
#pragma unroll
      for (int back = 0; back < kMostTaps; ++back) weights[back][i] = of_channel[back];
    }
    const int64_t first = run * kRun, end = first + kRun < tokens ? first + kRun : tokens;
    const int64_t sequence = sequence_of(first, taps.offsets, taps.sequences), begin = taps.offsets[sequence];
    int64_t next = taps.offsets[sequence + 1];  // where the next sequence begins
    // The inputs of the token back + 1 before; zeros before a sequence.
    float before[kMostTaps - 1][kChannels];
#pragma unroll
    for (int back = 0; back < kMostTaps - 1; ++back) {
      const int64_t r = first - 1 - back;
      const Channels<T> pack = *reinterpret_cast<const Channels<T>*>(x.row(r >= begin ? r : first) + c);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) before[back][i] = r >= begin ? widened(pack.values[i]) : 0;
    }
    for (int64_t start = first; start < end; start += kAhead) {
      Channels<T> packs[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        packs[i] = *reinterpret_cast<const Channels<T>*>(x.row(start + i < end ? start + i : start) + c);
#pragma unroll
      for (int row = 0; row < kAhead; ++row) {
        const int64_t r = start + row;
        if (r == next) {
          next = taps.offsets[sequence_of(r, taps.offsets, taps.sequences) + 1];
#pragma unroll
          for (auto& inputs : before) {
#pragma unroll
            for (float& input : inputs) input = 0;
          }
        }
        Channels<T> out;
#pragma unroll
        for (int i = 0; i < kChannels; ++i) {
          const float input = widened(packs[row].values[i]);
          float sum = fmaf(weights[0][i], input, bias[i]);
#pragma unroll
          for (int back = 1; back < kMostTaps; ++back) sum = fmaf(weights[back][i], before[back - 1][i], sum);
#pragma unroll
          for (int back = kMostTaps - 2; back > 0; --back) before[back][i] = before[back - 1][i];
          before[0][i] = input;
          store(&out.values[i], quickly_activated<kActivation>(sum));
        }
        if (r < end) *reinterpret_cast<Channels<T>*>(y.row(r) + c) = out;
      }
    }
  }
};

void causal_convolution(Gpu& gpu, const ops::CausalConvolution& op) {
  if (op.y.empty()) return;
  const Matrix offsets = gpu.on_device(op.offsets);
  const Taps taps{rows_of<float>(op.weight),
                  op.bias.empty() ? nullptr : op.bias.row<float>(0),
                  static_cast<const int64_t*>(offsets.view().data),
                  static_cast<int64_t>(op.offsets.size()) - 1,
                  op.weight.cols,
                  op.activation,
                  op.weight.cols == kMostTaps && op.weight.stride % 4 == 0 &&
                      reinterpret_cast<uintptr_t>(op.weight.data) % 16 == 0};
  const bool silu = op.activation == Activation::silu;
  if (!in_packs({op.x, op.y}) || op.weight.cols > kMostTaps || !(silu || op.activation == Activation::identity)) {
    return launch_places(op.y.rows, op.y.cols, 1, gpu.stream(), Convolution{any_rows(op.x), any_rows(op.y), taps});
  }
  with_element(op.y.dtype, [&](auto element) {
    using T = decltype(element);
    const auto launch = [&](auto body) {
      launch_places((op.y.rows + kRun - 1) / kRun, op.y.cols, kChannels, gpu.stream(), body);
    };
    const Rows<const T> x = rows_of<T>(op.x);
    const Rows<T> y = rows_of<T>(op.y);
    if (silu) return launch(ConvolutionRun<T, Activation::silu>{x, y, taps, op.y.rows});
    launch(ConvolutionRun<T, Activation::identity>{x, y, taps, op.y.rows});
  });
}

}  // namespace

void add_convolution_ops(GpuOps& table) { table.add<causal_convolution>(); }

}  // namespace gptq::cuda
