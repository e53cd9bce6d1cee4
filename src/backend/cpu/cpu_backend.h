// The CPU backend: matrix products and everything else by kernels chosen for the processor, factorizations by
// single-threaded OpenBLAS on tiles, all spread over one thread pool. How sums are split depends on shapes alone, so
// results are the same bits for any number of threads. Products of bf16 are computed as they are where the processor
// can; f16, and bf16 elsewhere, are widened to f32, panel by panel or row by row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/product_kernels.h"
#include "backend/cpu/scratch_pool.h"
#include "backend/op_table.h"
#include "base/parallel.h"
#include "tensor/memory_pool.h"

namespace gptq::cpu {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options);

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  std::string arithmetic() const override;
  void* allocate(size_t bytes) override { return memory_.allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { memory_.release(block, bytes); }
  void wait() override {}
  // The heap's free pages too.
  void trim() noexcept override;
  int64_t scratch_bytes(const OpCall& call) const override;
  Memory& staging_memory() override { return host_; }
  MemoryUse memory_use() const override;
  // bf16 where the processor has dot products of it, else f32.
  DType compute_dtype(DType stored) const override {
    return stored == DType::bf16 && products.multiply_bf16() ? DType::bf16 : DType::f32;
  }
  // Half of an addition's bandwidth costs less than the error of many roundings.
  DType residual_dtype(DType /*computed*/) const override { return DType::f32; }
  // Fusing pays on AMX, which is limited by memory.
  bool fuses_linears(DType dtype) const override { return uses_amx(dtype); }
  // AMX finishes 2048 tokens too quickly to amortize scheduling.
  int64_t batch_tokens(DType computed) const override { return uses_amx(computed) ? 8192 : 2048; }
  void compute(const ops::OpRef& op) override;

  // Its ops work with these.
  const Kernels& kernels;
  const ProductKernels& products;
  ThreadPool pool;
  ScratchPool scratch;

  // Row `row` of a float matrix as f32: the row itself where it is f32, else `to` (m.cols floats), filled.
  const float* as_f32(ConstMatrixView m, int64_t row, float* to) const;
  // All of a small float matrix as f32, row after row.
  std::vector<float> widened(ConstMatrixView m) const;
  // Where to compute row `row` of a float matrix: the row itself where it is f32, else `to`, which finish_row() then
  // rounds to the row. update_row() does the same for a row that is updated, with its present values.
  float* begin_row(const MatrixView& m, int64_t row, float* to) const;
  float* update_row(MatrixView m, int64_t row, float* to) const;
  void finish_row(const float* computed, const MatrixView& m, int64_t row) const;
  // Calls body(row, floats) for all rows on all threads, `floats` being pieces * width of the thread's own.
  template <typename Body>
  void for_rows(int64_t rows, int64_t width, int pieces, const Body& body);

 private:
  void copy_in(MatrixView to, const void* from) override;
  void copy_out(void* to, ConstMatrixView from) override;
  bool uses_amx(DType dtype) const { return dtype == DType::bf16 && products.bf16.tile_layout; }

  Memory& host_;
  LimitedMemory limited_;
  MemoryPool memory_{limited_};
};

using CpuOps = OpTable<CpuBackend>;
// Each adds the ops of one file: add_norm_ops() those of norms.cpp.
void add_attention_ops(CpuOps& table);
void add_column_ops(CpuOps& table);
void add_convolution_ops(CpuOps& table);
void add_copy_ops(CpuOps& table);
void add_delta_rule_ops(CpuOps& table);
void add_factor_ops(CpuOps& table);
void add_gate_ops(CpuOps& table);
void add_gram_ops(CpuOps& table);
void add_grid_ops(CpuOps& table);
void add_linear_ops(CpuOps& table);
void add_loss_ops(CpuOps& table);
void add_norm_ops(CpuOps& table);
void add_pack_ops(CpuOps& table);
void add_packed_ops(CpuOps& table);
void add_rope_ops(CpuOps& table);
void add_row_sum_ops(CpuOps& table);
void add_state_space_ops(CpuOps& table);
void add_sum_ops(CpuOps& table);
void add_symmetric_ops(CpuOps& table);

template <typename Body>
void CpuBackend::for_rows(int64_t rows, int64_t width, int pieces, const Body& body) {
  // Elements per task: enough to outweigh its scheduling.
  constexpr int64_t kGrain = 1 << 15;
  if (rows == 0 || width == 0) return;
  const int64_t rows_per_task = std::max<int64_t>(1, kGrain / width);
  pool.for_each((rows + rows_per_task - 1) / rows_per_task, [&](int64_t task) {
    ScratchPool::Lease lease = scratch.borrow(pieces * width);
    float* floats = lease.take(pieces * width);
    const int64_t end = std::min(rows, (task + 1) * rows_per_task);
    for (int64_t row = task * rows_per_task; row < end; ++row) body(row, floats);
  });
}

}  // namespace gptq::cpu
