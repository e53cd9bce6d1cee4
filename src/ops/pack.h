// Codes as the streams of bits that checkpoints hold.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// Packs each row's codes as a dense stream of bits (code i at bit i * bits, low bits first, in 32-bit words) and stores
// the stream of row r in column r: the qweight of the format.
// codes [rows, cols] u8, below 2^bits, bits 2, 3, 4 or 8; words [cols * bits / 32, rows] i32; cols * bits is a multiple
// of 32
struct Pack {
  static constexpr const char* kName = "pack";
  ConstMatrixView codes;
  int bits = 4;
  MatrixView words;

  auto reads() { return std::array{&codes}; }
  auto writes() { return std::array{&words}; }
  OpSizes sizes() const { return {codes.rows, codes.cols, bits}; }
  DType dtype() const { return codes.dtype; }
  static Pack trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.zeros(DType::u8, s[0], s[1]), static_cast<int>(s[2]), t.undefined(DType::i32, s[1] * s[2] / 32, s[0])};
  }
};
void reference(const Pack& op);

// The inverse: the codes of streams that are stored in columns.
// words [cols * bits / 32, rows] i32, codes [rows, cols] u8; bits and sizes as in Pack
struct Unpack {
  static constexpr const char* kName = "unpack";
  ConstMatrixView words;
  int bits = 4;
  MatrixView codes;

  auto reads() { return std::array{&words}; }
  auto writes() { return std::array{&codes}; }
  OpSizes sizes() const { return {codes.rows, codes.cols, bits}; }
  DType dtype() const { return codes.dtype; }
  static Unpack trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.zeros(DType::i32, s[1] * s[2] / 32, s[0]), static_cast<int>(s[2]), t.undefined(DType::u8, s[0], s[1])};
  }
};
void reference(const Unpack& op);

using PackOps = OpList<Pack, Unpack>;

}  // namespace gptq::ops
