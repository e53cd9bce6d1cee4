// A device that computes nothing and stores nothing: it counts the calls and the memory of a run. A plan is the run
// itself on such devices.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "backend/backend.h"
#include "tensor/memory_pool.h"

namespace gptq {

// Hands out addresses that must not be accessed.
class NoMemory final : public Memory {
 public:
  void* allocate(size_t bytes) override;
  void release(void* /*block*/, size_t /*bytes*/) noexcept override {}

 private:
  uintptr_t next_ = 4096;
};

class CountingBackend final : public Backend {
 public:
  // Stands for `device`, which takes its memory from `memory` and holds up to `max_held` bytes of it for reuse.
  CountingBackend(std::string device, LimitedMemory& memory, size_t max_held, DType dtype, DType residual_dtype,
                  bool fuses_linears)
      : name_(std::move(device)),
        dtype_(dtype),
        residual_dtype_(residual_dtype),
        fuses_linears_(fuses_linears),
        memory_(memory),
        pool_(memory, max_held) {}

  // The calls since the last time, by stage, and how many there were of each.
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

  void compute(const ops::OpRef& op) override;

 private:
  void copy_in(MatrixView /*to*/, const void* /*from*/) override {}
  void copy_out(void* /*to*/, ConstMatrixView /*from*/) override {}

  const std::string name_;
  const DType dtype_, residual_dtype_;
  const bool fuses_linears_;
  std::string stage_;
  std::map<std::string, std::map<OpCall, int64_t>> calls_;
  LimitedMemory& memory_;
  MemoryPool pool_;
};

}  // namespace gptq
