#include "backend/cuda/multiplier.h"

#include <utility>
#include <vector>

#include "backend/cuda/library_errors.h"
#include "base/error.h"

namespace gptq::cuda {
namespace {

cudaDataType_t cuda_type(DType dtype) {
  return dtype == DType::f16 ? CUDA_R_16F : dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

using Layout = Owned<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;

Layout make_layout(DType dtype, int64_t rows, int64_t cols, int64_t ld, int64_t batch, int64_t step) {
  cublasLtMatrixLayout_t layout = nullptr;
  cublasLtMatrixLayoutCreate(&layout, cuda_type(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), ld);
  if (batch > 1) {
    const auto count = static_cast<int32_t>(batch);
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count));
    cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof(step));
  }
  return Layout(layout);
}

int32_t pieces_of(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t pieces = 1;
  size_t written = 0;
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &pieces, sizeof(pieces), &written);
  return pieces;
}

// Row count assumed when choosing an algorithm for any number of rows.
constexpr int64_t kTypicalRows = 8192;

}  // namespace

// The descriptors of a product for cuBLASLt.
struct Multiplier::Operation {
  Owned<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy> description;
  Layout a, b, d;

  Operation(const Product& p, const void* bias)
      : a(make_layout(p.input, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda, p.batch, p.step_a)),
        b(make_layout(p.input, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb, p.batch, p.step_b)),
        d(make_layout(p.output, p.m, p.n, p.ldd, p.batch, p.step_d)) {
    cublasLtMatmulDesc_t handle = nullptr;
    cublasLtMatmulDescCreate(&handle, p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    description.reset(handle);
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(p.output));
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
  }
  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof(value));
  }
};

int64_t alignment_of(const ConstMatrixView& m) {
  const auto bits = reinterpret_cast<uintptr_t>(m.data) | static_cast<uintptr_t>(m.stride) * size_of(m.dtype) | 16U;
  return static_cast<int64_t>(bits & (~bits + 1));
}

Multiplier::Multiplier(std::string device, cudaStream_t stream, void* workspace, size_t workspace_bytes)
    : device_(std::move(device)), stream_(stream), workspace_(workspace), workspace_bytes_(workspace_bytes) {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), device_, "starting cuBLAS");
  handle_.reset(handle);
}

// cuBLASLt's first proposal. Where the number of rows may vary, the proposal for a typical number is taken, and none
// that splits the inner dimension, so that a row's sums do not depend on the number of rows.
cublasLtMatmulAlgo_t Multiplier::algorithm(const Product& product, bool bias, const Operation& operation) {
  Product typical = product;
  if (product.rows_are_free) typical.n = kTypicalRows;
  const Key key = {static_cast<int64_t>(product.input),
                   static_cast<int64_t>(product.output),
                   product.transpose_a,
                   product.transpose_b,
                   product.tf32,
                   typical.m,
                   typical.n,
                   product.k,
                   product.lda,
                   product.ldb,
                   product.ldd,
                   product.batch,
                   product.beta != 0,
                   product.alignment,
                   product.rows_are_free * 2 + bias};
  if (const auto found = algorithms_.find(key); found != algorithms_.end()) return found->second;

  const auto propose = [&](const Operation& shape) {
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), device_, "choosing an algorithm");
    const Owned<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy> owner(preference);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes_);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(attribute, static_cast<uint32_t>(product.alignment));
    std::vector<cublasLtMatmulHeuristicResult_t> proposals(16);
    int count = 0;
    if (cublasLtMatmulAlgoGetHeuristic(handle_.get(), operation.description.get(), shape.a.get(), shape.b.get(),
                                       shape.d.get(), shape.d.get(), preference, static_cast<int>(proposals.size()),
                                       proposals.data(), &count) != CUBLAS_STATUS_SUCCESS)
      count = 0;
    proposals.resize(static_cast<size_t>(count));
    return proposals;
  };
  const auto works = [&](cublasLtMatmulAlgo_t candidate) {
    cublasLtMatmulHeuristicResult_t result = {};
    return cublasLtMatmulAlgoCheck(handle_.get(), operation.description.get(), operation.a.get(), operation.b.get(),
                                   operation.d.get(), operation.d.get(), &candidate,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= workspace_bytes_;
  };
  for (const auto& proposal : propose(Operation(typical, nullptr))) {
    if (product.rows_are_free && pieces_of(proposal.algo) > 1) continue;
    if (works(proposal.algo)) return algorithms_[key] = proposal.algo;
  }
  for (const auto& proposal : propose(operation)) {
    if (works(proposal.algo)) return algorithms_[key] = proposal.algo;
  }
  throw DeviceError(
      cat(device_, ": cuBLAS has no algorithm for a product of ", product.m, " x ", product.k, " x ", product.n));
}

void Multiplier::multiply(const Product& product, const void* a, const void* b, const void* bias, void* d) {
  const Operation operation(product, bias);
  const cublasLtMatmulAlgo_t chosen = algorithm(product, bias != nullptr, operation);
  const float alpha = 1;
  check(cublasLtMatmul(handle_.get(), operation.description.get(), &alpha, a, operation.a.get(), b, operation.b.get(),
                       &product.beta, d, operation.d.get(), d, operation.d.get(), &chosen, workspace_, workspace_bytes_,
                       stream_),
        device_, "a product");
}

}  // namespace gptq::cuda
