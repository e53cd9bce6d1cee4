// What the ops of a GPU work with: its stream, memory for temporaries, and the libraries, which start when they are
// first needed. Ops queue kernels; they neither synchronize nor look for errors of launches, which the backend does
// after each op. Matrices are in device memory with no alignment beyond their elements'. Sizes of zero queue nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "backend/op_table.h"
#include "tensor/matrix.h"

struct cublasContext;
struct cusolverDnContext;

namespace gptq {

class Backend;

namespace cuda {

class Multiplier;

class Gpu {
 public:
  // Memory that cuBLAS may use in addition to its operands: NVIDIA's recommended workspace for Hopper.
  static constexpr int64_t kWorkspace = int64_t{32} << 20;

  // The backend, whose memory and transfers it uses, must outlive it.
  Gpu(Backend& backend, std::string name, cudaStream_t stream);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const std::string& name() const { return name_; }
  cudaStream_t stream() const { return stream_; }
  Memory& memory();
  // Host values on the device, as words of 32 bits.
  template <typename T>
  Matrix on_device(std::span<const T> values) {
    return copy_of(values.data(), values.size_bytes());
  }
  // A matrix of i32, once all that is queued is done.
  std::vector<int32_t> fetch(const Matrix& matrix);

  Multiplier& multiplier();
  cublasContext* blas();
  cusolverDnContext* solver();

 private:
  struct Libraries;
  Matrix copy_of(const void* data, size_t bytes);
  void* workspace();

  Backend& backend_;
  const std::string name_;
  const cudaStream_t stream_;
  std::unique_ptr<Libraries> libraries_;
};

using GpuOps = OpTable<Gpu>;
// Each adds the ops of the file of its name.
void add_attention_ops(GpuOps& table);
void add_column_ops(GpuOps& table);
void add_copy_ops(GpuOps& table);
void add_factor_ops(GpuOps& table);
void add_gate_ops(GpuOps& table);
void add_gram_ops(GpuOps& table);
void add_grid_ops(GpuOps& table);
void add_linear_ops(GpuOps& table);
void add_loss_ops(GpuOps& table);
void add_norm_ops(GpuOps& table);
void add_pack_ops(GpuOps& table);
void add_rope_ops(GpuOps& table);
void add_row_sum_ops(GpuOps& table);
void add_sum_ops(GpuOps& table);
void add_symmetric_ops(GpuOps& table);

}  // namespace cuda
}  // namespace gptq
