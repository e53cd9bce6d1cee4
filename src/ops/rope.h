// Rotary position embeddings.
#pragma once

#include "ops/op.h"

namespace gptq {

// Which elements of a head are rotated together: i with i + half (GPT-NeoX), or 2 i with 2 i + 1 (GPT-J).
enum class RotaryOrder : uint8_t { halves, interleaved };

// Sequences that share a matrix: sequence s is rows [offsets[s], offsets[s + 1]).
using SequenceOffsets = std::span<const int64_t>;

namespace ops {

// Rotates the first 2 * cos.cols elements of each head in pairs, in place. A row's position counts from the start of
// its sequence.   cos, sin [positions, rotary_dim / 2] f32; x [tokens, heads * head_dim]
struct Rope {
  static constexpr const char* kName = "rope";
  ConstMatrixView cos, sin;
  SequenceOffsets offsets;
  RotaryOrder order = RotaryOrder::halves;
  int64_t head_dim = 0;
  MatrixView x;

  auto reads() { return std::array{&cos, &sin}; }
  auto writes() { return std::array{&x}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  // Heads of 64 elements where the width is made of such.
  static Rope trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const int64_t head_dim = s[1] % 64 == 0 ? 64 : s[1];
    const MatrixView angles = t.random(DType::f32, s[0], head_dim / 2);
    return {angles, angles, t.sequence(s[0]), RotaryOrder::halves, head_dim, t.random(dtype, s[0], s[1])};
  }
};
void reference(const Rope& op);

using RopeOps = OpList<Rope>;

}  // namespace ops
}  // namespace gptq
