// One NVIDIA GPU as a Backend: one stream, on which everything is queued in order. Products are cuBLASLt's, the
// factorization is cuSOLVER's, the rest are the kernels of kernels.h. Nothing waits for the device but what brings a
// result to the host: download(), factor() and wait().
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/multiplier.h"
#include "tensor/memory_pool.h"

namespace gptq::cuda {

// The device seconds between changes of what it does, measured with events on its stream.
class DeviceClock {
 public:
  DeviceClock(std::string device, cudaStream_t stream) : device_(std::move(device)), stream_(stream) {}
  ~DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  // What is queued from now on belongs to `stage` and `op`; both are literals.
  void mark(const char* stage, const char* op);
  // Adds up what the device has finished; call when it is idle.
  void collect();
  const std::map<std::pair<std::string, std::string>, double>& seconds() const { return seconds_; }

 private:
  struct Mark {
    const char *stage, *op;
    cudaEvent_t event;
  };
  const std::string device_;
  const cudaStream_t stream_;
  std::vector<Mark> marks_;
  std::vector<cudaEvent_t> free_;
  std::map<std::pair<std::string, std::string>, double> seconds_;
};

class CudaBackend final : public Backend {
 public:
  // Memory that cuBLAS may use beside its operands: what its makers advise for Hopper.
  static constexpr int64_t kWorkspace = int64_t{32} << 20;

  CudaBackend(int index, const BackendOptions& options);
  ~CudaBackend() override;

  std::string name() const override { return name_; }
  std::string description() const override { return description_; }
  DType compute_dtype(DType stored) const override { return stored; }
  void wait() override;
  void trim() noexcept override;
  void trim_staging() noexcept override { staging_.trim(); }
  MemoryUse memory_use() const override { return {limited_.bytes(), memory_.bytes_held(), limited_.peak_bytes()}; }
  int64_t batch_tokens(DType /*computed*/) const override { return 8192; }
  int64_t workspace_bytes() const override { return kWorkspace; }
  Memory& staging_memory() override { return staging_; }
  void set_stage(const char* stage) override;
  std::vector<DeviceSeconds> device_seconds() override;

  void* allocate(size_t bytes) override { return limited_.allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { limited_.release(block, bytes); }

  void gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) override;
  void gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) override;
  void convert(ConstMatrixView x, MatrixView y) override;
  void clear(MatrixView y) override;
  void add(ConstMatrixView x, float factor, MatrixView y) override;
  void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) override;
  void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) override;
  void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) override;
  void rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order, int64_t head_dim,
            MatrixView x) override;
  void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                 const AttentionShape& shape, MatrixView y) override;
  void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) override;
  void cap(Cap kind, float bound, MatrixView x) override;
  void add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights, MatrixView y) override;
  void add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) override;
  void add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) override;
  void mirror(MatrixView h) override;
  void permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) override;
  void solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) override;
  void solve_systems(ConstMatrixView a, float ridge, MatrixView x) override;
  void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) override;
  void add_row_norms(ConstMatrixView x, MatrixView norms) override;
  void add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) override;
  bool factor(MatrixView h) override;
  void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                 MatrixView scales, MatrixView zeros) override;
  void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                        std::span<const int32_t> groups, const Grid& grid, MatrixView codes, MatrixView errors,
                        MatrixView loss) override;
  void round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) override;
  void dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) override;
  void pack(ConstMatrixView codes, int bits, MatrixView words) override;
  void token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) override;
  void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) override;

 private:
  void copy_in(MatrixView to, const void* from) override;
  void copy_out(void* to, ConstMatrixView from) override;
  // Makes this device the thread's, and counts what follows as `op`.
  void begin(const char* op);
  void check_launch(const char* op) const;  // throws what a launch has met
  template <typename T>
  Matrix on_device(std::span<const T> values);
  void add_gram_blocks(ConstMatrixView x, MatrixView h);
  // x in dtype, its rows starting at multiples of 8 elements.
  Matrix aligned_copy(ConstMatrixView x, DType dtype);
  Multiplier& multiplier();
  cublasHandle_t blas();
  cusolverDnHandle_t solver();
  void* workspace();

  const int index_;
  const std::string name_;
  std::string description_;
  const char* stage_ = "";
  Owned<cudaStream_t, &cudaStreamDestroy> stream_;
  DeviceMemory memory_;
  LimitedMemory limited_;
  StagingMemory staging_;
  DeviceClock clock_;
  // Made when first needed.
  Matrix workspace_;
  std::unique_ptr<Multiplier> multiplier_;
  Owned<cublasHandle_t, &cublasDestroy> blas_;
  Owned<cusolverDnHandle_t, &cusolverDnDestroy> solver_;
};

}  // namespace gptq::cuda
