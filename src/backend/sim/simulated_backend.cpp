// A simulated accelerator: the CPU's ops with a memory of its own. Matrices are copied to it and from it by upload()
// and download() only, its memory has a limit, and an op that is given a matrix of the host or of another device fails.
// So placement can be tested and rehearsed without an accelerator.
#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "backend/backend.h"
#include "backend/registry.h"
#include "base/error.h"
#include "tensor/memory_pool.h"

namespace gptq {
namespace {

class SimulatedBackend final : public Backend {
 public:
  SimulatedBackend(int index, const BackendOptions& options)
      : name_(cat("sim:", index)),
        host_(options.memory != nullptr ? *options.memory : host_memory()),
        limited_(host_, name_, options.memory_bytes),
        cpu_(open_backend("cpu", {.threads = options.threads})) {}

  std::string name() const override { return name_; }
  std::string arithmetic() const override { return cat("sim, ", cpu_->arithmetic()); }
  std::string description() const override { return cat("simulated accelerator on ", cpu_->description()); }
  DType compute_dtype(DType stored) const override { return stored; }  // as accelerators do
  void wait() override { cpu_->wait(); }
  int64_t scratch_bytes(const OpCall& call) const override { return cpu_->scratch_bytes(call); }
  Memory& staging_memory() override { return host_; }
  void trim() noexcept override {
    pool_.trim();
    cpu_->trim();
  }
  MemoryUse memory_use() const override {
    return {limited_.bytes(), static_cast<int64_t>(pool_.bytes_held()), limited_.peak_bytes()};
  }

  void* allocate(size_t bytes) override {
    void* block = pool_.allocate(bytes);
    std::lock_guard lock(mutex_);
    blocks_[static_cast<const std::byte*>(block)] = bytes;
    return block;
  }
  void release(void* block, size_t bytes) noexcept override {
    {
      std::lock_guard lock(mutex_);
      blocks_.erase(static_cast<const std::byte*>(block));
    }
    pool_.release(block, bytes);
  }

  void compute(const ops::OpRef& op) override {
    op.visit([&]<typename Op>(Op typed) -> ops::ResultOf<Op> {
      for (const ConstMatrixView* view : typed.reads()) check(Op::kName, *view);
      for (const MatrixView* view : typed.writes()) check(Op::kName, *view);
      if constexpr (is_composed<Op>())
        return fall_back(op);
      else
        return cpu_->run(typed);
    });
  }

 private:
  void copy_in(MatrixView to, const void* from) override {
    check("upload", to);
    cpu_->upload(to, from);
  }
  void copy_out(void* to, ConstMatrixView from) override {
    check("download", from);
    cpu_->download(to, from);
  }

  // The matrix must be in a block that this device has handed out and that is not released.
  void check(const char* op, ConstMatrixView m) const {
    if (m.empty()) return;
    const auto* first = static_cast<const std::byte*>(m.data);
    const auto* end = first + ((m.rows - 1) * m.stride + m.cols) * static_cast<int64_t>(size_of(m.dtype));
    std::lock_guard lock(mutex_);
    auto block = blocks_.upper_bound(first);
    if (block == blocks_.begin() || (--block, end > block->first + block->second)) {
      throw DeviceError(cat(name_, ": ", op, " was given a ", name_of(m.dtype), " matrix [", m.rows, ", ", m.cols,
                            "] that is not in this device's memory"));
    }
  }

  const std::string name_;
  Memory& host_;
  LimitedMemory limited_;
  MemoryPool pool_{limited_};
  std::unique_ptr<Backend> cpu_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, size_t> blocks_;  // handed out, by address
};

}  // namespace

std::unique_ptr<Backend> open_simulated(int index, const BackendOptions& options) {
  return std::make_unique<SimulatedBackend>(index, options);
}

}  // namespace gptq
