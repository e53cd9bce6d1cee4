// Matrix products by cuBLASLt, with algorithms chosen so that results are repeatable.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <cublasLt.h>

#include "backend/cuda/owned.h"
#include "tensor/matrix.h"

namespace gptq::cuda {

// d = a b + beta d in cuBLAS's column-major terms: a [m, k], b [k, n], d [m, n], a and b each transposed in memory or
// not; `batch` of them, the next one step_a, step_b and step_d elements further. Sums are in f32.
struct Product {
  DType input = DType::f32, output = DType::f32;
  bool transpose_a = false, transpose_b = false;
  bool tf32 = false;  // f32 inputs may be rounded to 11 bits
  int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldd = 0;
  int64_t batch = 1, step_a = 0, step_b = 0, step_d = 0;
  float beta = 0;
  int64_t alignment = 16;  // bytes, of all addresses and columns
  // n counts independent rows of the input: results of a row must not depend on it.
  bool rows_are_free = false;
};

// The largest power of two up to 16 that divides the address and the bytes from row to row.
int64_t alignment_of(const ConstMatrixView& m);

class Multiplier {
 public:
  // Products use `workspace_bytes` of device memory at `workspace`, and run on `stream`.
  Multiplier(std::string device, cudaStream_t stream, void* workspace, size_t workspace_bytes);

  // bias: [m] of the output's dtype, or nullptr. Throws DeviceError.
  void multiply(const Product& product, const void* a, const void* b, const void* bias, void* d);

 private:
  using Key = std::array<int64_t, 15>;
  struct Operation;

  cublasLtMatmulAlgo_t algorithm(const Product& product, bool bias, const Operation& operation);

  const std::string device_;
  const cudaStream_t stream_;
  void* const workspace_;
  const size_t workspace_bytes_;
  Owned<cublasLtHandle_t, &cublasLtDestroy> handle_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace gptq::cuda
