// A device that computes nothing and stores nothing: it counts what a run would take of memory and would do. A plan is
// the run itself on such devices.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "backend/backend.h"
#include "tensor/memory_pool.h"

namespace gptq {

// Gives out addresses that no one may touch.
class NoMemory final : public Memory {
 public:
  void* allocate(size_t bytes) override;
  void release(void* /*block*/, size_t /*bytes*/) noexcept override {}

 private:
  uintptr_t next_ = 4096;
};

class CountingBackend final : public Backend {
 public:
  // It stands for `device`, which takes its memory from `memory` and holds up to `max_held` bytes of it for reuse.
  CountingBackend(std::string device, LimitedMemory& memory, size_t max_held, DType dtype, DType residual_dtype,
                  bool fuses_linears)
      : name_(std::move(device)),
        dtype_(dtype),
        residual_dtype_(residual_dtype),
        fuses_linears_(fuses_linears),
        memory_(memory),
        pool_(memory, max_held) {}

  // Calls since the last time, and how many of each, by what set_stage() said last.
  std::map<std::string, std::map<OpCall, int64_t>> take_calls() { return std::exchange(calls_, {}); }

  std::string name() const override { return name_; }
  std::string description() const override { return "counts what " + name_ + " would do"; }
  DType compute_dtype(DType /*stored*/) const override { return dtype_; }
  DType residual_dtype(DType /*computed*/) const override { return residual_dtype_; }
  bool fuses_linears(DType /*dtype*/) const override { return fuses_linears_; }
  void wait() override {}
  void set_stage(const char* stage) override { stage_ = stage; }
  void trim() noexcept override { pool_.trim(); }
  MemoryUse memory_use() const override {
    return {memory_.bytes(), static_cast<int64_t>(pool_.bytes_held()), memory_.peak_bytes()};
  }
  void* allocate(size_t bytes) override { return pool_.allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { pool_.release(block, bytes); }

  void gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) override;
  void gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) override;
  void convert(ConstMatrixView x, MatrixView y) override;
  void clear(MatrixView y) override;
  void add(ConstMatrixView x, float factor, MatrixView y) override;
  void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) override;
  void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) override;
  void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) override;
  void gated_linear(ConstMatrixView x, const GatedWeights& weights, MatrixView y) override;
  void add_linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, float factor, MatrixView y) override;
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
  void copy_in(MatrixView /*to*/, const void* /*from*/) override {}
  void copy_out(void* /*to*/, ConstMatrixView /*from*/) override {}  // what is there stays
  void count(std::string_view op, DType dtype, std::array<int64_t, 4> sizes) { ++calls_[stage_][{op, sizes, dtype}]; }

  const std::string name_;
  const DType dtype_, residual_dtype_;
  const bool fuses_linears_;
  std::string stage_;
  std::map<std::string, std::map<OpCall, int64_t>> calls_;
  LimitedMemory& memory_;
  MemoryPool pool_;
};

}  // namespace gptq
