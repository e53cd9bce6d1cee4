// A GPU as its ops use it: its stream, memory for temporaries, and the libraries. Ops queue kernels; they neither
// synchronize nor look for errors of launches, which the backend does after each op. Matrices are in device memory with
// no alignment beyond their elements'. Sizes of zero queue nothing.
#pragma once

#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "backend/op_table.h"
#include "tensor/matrix.h"

struct cublasContext;
struct cusolverDnContext;

namespace gptq {

class Backend;

namespace cuda {

class LibraryHandles;
class Multiplier;

class Gpu {
 public:
  // The backend, whose memory and transfers it uses, and the others must outlive it.
  Gpu(Backend& backend, const char* name, cudaStream_t stream, LibraryHandles& libraries)
      : backend_(backend), name_(name), stream_(stream), libraries_(libraries) {}

  const char* name() const { return name_; }
  cudaStream_t stream() const { return stream_; }
  Memory& memory();
  // Host values on the device, as words of 32 bits.
  template <typename T>
  Matrix on_device(std::span<const T> values) {
    return copy_of(values.data(), values.size_bytes());
  }
  // Copies a matrix to the host, once all that is queued is done.
  void fetch(const Matrix& matrix, void* to);

  Multiplier& multiplier();
  cublasContext* blas();
  cusolverDnContext* solver();

 private:
  Matrix copy_of(const void* data, size_t bytes);

  Backend& backend_;
  const char* const name_;
  const cudaStream_t stream_;
  LibraryHandles& libraries_;
};

using GpuOps = OpTable<Gpu>;
// Each adds the ops of one file: add_norm_ops() those of norms.cu.
void add_attention_ops(GpuOps& table);
void add_column_ops(GpuOps& table);
void add_convolution_ops(GpuOps& table);
void add_copy_ops(GpuOps& table);
void add_delta_rule_ops(GpuOps& table);
void add_factor_ops(GpuOps& table);
void add_gate_ops(GpuOps& table);
void add_gram_ops(GpuOps& table);
void add_grid_ops(GpuOps& table);
void add_linear_ops(GpuOps& table);
void add_loss_ops(GpuOps& table);
void add_norm_ops(GpuOps& table);
void add_pack_ops(GpuOps& table);
void add_packed_ops(GpuOps& table);
void add_rope_ops(GpuOps& table);
void add_row_sum_ops(GpuOps& table);
void add_state_space_ops(GpuOps& table);
void add_sum_ops(GpuOps& table);
void add_symmetric_ops(GpuOps& table);

}  // namespace cuda
}  // namespace gptq
