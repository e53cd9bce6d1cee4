// The GPTQ paper's algorithm (Frantar et al., 2022, Algorithm 1, with the group handling of its published code), in
// double precision and in the paper's notation: the oracle for tests of solver.cpp, written for readers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace gptq {

struct PaperOptions {
  int bits = 4;
  int64_t group_size = 128;  // -1: one group
  bool sym = true;
  double damp_percent = 0.01;
  int64_t blocksize = 128;
};

struct PaperResult {
  std::vector<uint8_t> codes;       // [rows, cols]
  std::vector<double> scales;       // [rows, groups], rounded to fp16
  std::vector<uint8_t> zeros;       // [rows, groups]
  std::vector<double> dequantized;  // Q [rows, cols]
  double loss = 0;                  // sum of (w - q)^2 / d^2
};

// W [rows, cols] and H [cols, cols] row-major; H need not be scaled. Throws Error if the damped H is not positive
// definite.
PaperResult paper_gptq(std::span<const double> W, std::span<const double> H, int64_t rows, int64_t cols,
                       const PaperOptions& options);

}  // namespace gptq
