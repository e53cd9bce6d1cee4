// A simulated accelerator: the CPU's ops behind a memory of its own. Matrices reach it and leave it by upload() and
// download() only, its memory has a size, and an op that is handed a matrix of the host or of another device fails. So
// everything that depends on where things are can be tried, tested and rehearsed without an accelerator.
#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "backend/backend.h"
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

  void gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) override {
    check("gather_rows", {table, y});
    cpu_->gather_rows(table, ids, y);
  }
  void gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) override {
    check("gather_columns", {x, y});
    cpu_->gather_columns(x, ids, y);
  }
  void convert(ConstMatrixView x, MatrixView y) override {
    check("convert", {x, y});
    cpu_->convert(x, y);
  }
  void clear(MatrixView y) override {
    check("clear", {y});
    cpu_->clear(y);
  }
  void add(ConstMatrixView x, float factor, MatrixView y) override {
    check("add", {x, y});
    cpu_->add(x, factor, y);
  }
  void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) override {
    check("rms_norm", {x, weight, y});
    cpu_->rms_norm(x, weight, eps, y);
  }
  void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) override {
    check("layer_norm", {x, weight, bias, y});
    cpu_->layer_norm(x, weight, bias, eps, y);
  }
  void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) override {
    check("linear", {x, w, bias, y});
    cpu_->linear(x, w, bias, y);
  }
  void rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order, int64_t head_dim,
            MatrixView x) override {
    check("rope", {cos, sin, x});
    cpu_->rope(cos, sin, offsets, order, head_dim, x);
  }
  void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                 const AttentionShape& shape, MatrixView y) override {
    check("attention", {q, k, v, shape.slopes, shape.sinks, y});
    cpu_->attention(q, k, v, offsets, shape, y);
  }
  void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) override {
    check("gate", {gate, up, y});
    cpu_->gate(gate, up, activation, y);
  }
  void cap(Cap kind, float bound, MatrixView x) override {
    check("cap", {x});
    cpu_->cap(kind, bound, x);
  }
  void add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights,
                MatrixView y) override {
    check("add_rows", {x, y});
    cpu_->add_rows(x, ids, weights, y);
  }
  void add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) override {
    check("add_gram", {x, h, dropped});
    cpu_->add_gram(x, h, dropped);
  }
  void add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) override {
    check("add_cross_gram", {x, original, c});
    cpu_->add_cross_gram(x, original, c);
  }
  void mirror(MatrixView h) override {
    check("mirror", {h});
    cpu_->mirror(h);
  }
  void permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) override {
    check("permute_symmetric", {h, y});
    cpu_->permute_symmetric(h, order, damp, y);
  }
  void solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) override {
    check("solve_triangle", {factor, x});
    cpu_->solve_triangle(factor, transposed, x);
  }
  void solve_systems(ConstMatrixView a, float ridge, MatrixView x) override {
    check("solve_systems", {a, x});
    cpu_->solve_systems(a, ridge, x);
  }
  void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) override {
    check("group_products", {x, y, products});
    cpu_->group_products(x, y, group_size, products);
  }
  void add_row_norms(ConstMatrixView x, MatrixView norms) override {
    check("add_row_norms", {x, norms});
    cpu_->add_row_norms(x, norms);
  }
  void add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) override {
    check("add_product_norms", {w, factor, norms});
    cpu_->add_product_norms(w, factor, norms);
  }
  bool factor(MatrixView h) override {
    check("factor", {h});
    return cpu_->factor(h);
  }
  void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                 MatrixView scales, MatrixView zeros) override {
    check("find_grid", {w, importance, scales, zeros});
    cpu_->find_grid(w, importance, group_size, search, scales, zeros);
  }
  void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                        std::span<const int32_t> groups, const Grid& grid, MatrixView codes, MatrixView errors,
                        MatrixView loss) override {
    check("quantize_columns", {w, feedback, factor, grid.scales, grid.zeros, codes, errors, loss});
    cpu_->quantize_columns(w, feedback, factor, groups, grid, codes, errors, loss);
  }
  void round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) override {
    check("round_columns", {w, grid.scales, grid.zeros, codes});
    cpu_->round_columns(w, groups, grid, codes);
  }
  void dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) override {
    check("dequantize", {codes, grid.scales, grid.zeros, w});
    cpu_->dequantize(codes, groups, grid, w);
  }
  void pack(ConstMatrixView codes, int bits, MatrixView words) override {
    check("pack", {codes, words});
    cpu_->pack(codes, bits, words);
  }
  void token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) override {
    check("token_losses", {logits, losses});
    cpu_->token_losses(logits, targets, losses);
  }
  void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) override {
    check("compare_logits", {p, q, divergence, same_top});
    cpu_->compare_logits(p, q, divergence, same_top);
  }

 private:
  void copy_in(MatrixView to, const void* from) override {
    check("upload", {to});
    cpu_->upload(to, from);
  }
  void copy_out(void* to, ConstMatrixView from) override {
    check("download", {from});
    cpu_->download(to, from);
  }

  // Each matrix must lie in a block that this device has handed out and not taken back.
  void check(const char* op, std::initializer_list<ConstMatrixView> matrices) const {
    for (const ConstMatrixView& m : matrices) {
      if (m.empty()) continue;
      const auto* first = static_cast<const std::byte*>(m.data);
      const auto* end = first + ((m.rows - 1) * m.stride + m.cols) * static_cast<int64_t>(size_of(m.dtype));
      std::lock_guard lock(mutex_);
      auto block = blocks_.upper_bound(first);
      if (block == blocks_.begin() || (--block, end > block->first + block->second)) {
        throw DeviceError(cat(name_, ": ", op, " was given a ", name_of(m.dtype), " matrix [", m.rows, ", ", m.cols,
                              "] that is not in this device's memory"));
      }
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
