// Codes packed into streams of bits.
#include <cstdint>

#include "backend/cuda/gpu.h"
#include "ops/pack.h"

namespace gptq::cuda {
namespace {

// A block turns 32 rows of one tile of codes, 32 words long, into 32 words of 32 columns, through shared memory so that
// both sides are read and written along rows. Limited by memory bandwidth.
constexpr int kTile = 32;

template <int kBits>
__global__ void pack_kernel(const uint8_t* codes, int64_t code_stride, int64_t rows, int64_t cols, uint32_t* words,
                            int64_t word_stride) {
  constexpr int kTileCodes = kTile * 32 / kBits + (32 % kBits == 0 ? 0 : 2);
  __shared__ uint8_t tile[kTile][kTileCodes + 4];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTile,
                first_word = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t first_code = first_word * 32 / kBits;
  // A tile of 3-bit codes starts and ends inside a code.
  for (int r = threadIdx.y; r < kTile; r += blockDim.y) {
    for (int c = threadIdx.x; c < kTileCodes; c += blockDim.x) {
      const int64_t row = first_row + r, col = first_code + c;
      tile[r][c] = row < rows && col < cols ? codes[row * code_stride + col] : 0;
    }
  }
  __syncthreads();
  const int64_t row = first_row + threadIdx.x;
  for (int i = threadIdx.y; i < kTile; i += blockDim.y) {
    const int64_t word = first_word + i;
    if (row >= rows || word >= cols * kBits / 32) continue;
    const int64_t first_bit = word * 32;
    uint32_t value = 0;
    for (int64_t code = first_bit / kBits; code * kBits < first_bit + 32; ++code) {
      const auto shift = static_cast<int>(code * kBits - first_bit);
      const uint32_t bits = tile[threadIdx.x][code - first_code];
      value |= shift >= 0 ? bits << shift : bits >> -shift;
    }
    words[word * word_stride + row] = value;
  }
}

// The way back: a block turns 32 streams of 128 codes, which are whole words, into codes, each thread four at a time.
constexpr int kStreams = 32, kCodes = 128;

template <int kBits>
__global__ void unpack_kernel(const uint32_t* words, int64_t word_stride, uint8_t* codes, int64_t code_stride,
                              int64_t rows, int64_t cols) {
  constexpr int kWords = kCodes * kBits / 32;
  __shared__ uint32_t tile[kStreams][kWords + 1];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kStreams,
                first_code = static_cast<int64_t>(blockIdx.y) * kCodes, first_word = first_code * kBits / 32;
  for (int i = threadIdx.y; i < kWords; i += blockDim.y) {
    const int64_t row = first_row + threadIdx.x, word = first_word + i;
    tile[threadIdx.x][i] = row < rows && word < cols * kBits / 32 ? words[word * word_stride + row] : 0;
  }
  __syncthreads();
  const int64_t col = first_code + threadIdx.x * 4;
  if (col >= cols) return;
  for (int r = threadIdx.y; r < kStreams && first_row + r < rows; r += blockDim.y) {
    uint32_t four = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int bit = (threadIdx.x * 4 + i) * kBits, word = bit / 32, shift = bit % 32;
      uint32_t code = tile[r][word] >> shift;
      if (shift + kBits > 32) code |= tile[r][word + 1] << (32 - shift);
      four |= (code & ((1U << kBits) - 1)) << 8 * i;
    }
    uint8_t* to = codes + (first_row + r) * code_stride + col;
    if (reinterpret_cast<uintptr_t>(to) % 4 == 0) {
      *reinterpret_cast<uint32_t*>(to) = four;
    } else {
      for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(four >> 8 * i);
    }
  }
}

unsigned blocks_for(int64_t tasks, int64_t each) { return static_cast<unsigned>((tasks + each - 1) / each); }

void pack(Gpu& gpu, const ops::Pack& op) {
  if (op.words.empty()) return;
  const dim3 blocks(blocks_for(op.codes.rows, kTile), blocks_for(op.words.rows, kTile)), threads(kTile, 8);
  const auto kernel = op.bits == 2   ? pack_kernel<2>
                      : op.bits == 3 ? pack_kernel<3>
                      : op.bits == 4 ? pack_kernel<4>
                                     : pack_kernel<8>;
  kernel<<<blocks, threads, 0, gpu.stream()>>>(static_cast<const uint8_t*>(op.codes.data), op.codes.stride,
                                               op.codes.rows, op.codes.cols, static_cast<uint32_t*>(op.words.data),
                                               op.words.stride);
}

void unpack(Gpu& gpu, const ops::Unpack& op) {
  if (op.words.empty()) return;
  const dim3 blocks(blocks_for(op.codes.rows, kStreams), blocks_for(op.codes.cols, kCodes)), threads(kCodes / 4, 8);
  const auto kernel = op.bits == 2   ? unpack_kernel<2>
                      : op.bits == 3 ? unpack_kernel<3>
                      : op.bits == 4 ? unpack_kernel<4>
                                     : unpack_kernel<8>;
  kernel<<<blocks, threads, 0, gpu.stream()>>>(static_cast<const uint32_t*>(op.words.data), op.words.stride,
                                               static_cast<uint8_t*>(op.codes.data), op.codes.stride, op.codes.rows,
                                               op.codes.cols);
}

}  // namespace

void add_pack_ops(GpuOps& table) {
  table.add<pack>();
  table.add<unpack>();
}

}  // namespace gptq::cuda
