// A device: its memory, its in-order queue and its ops. Supply the pure functions and every op works, computed by
// reference() on the host; override ops for speed. Several devices are several objects; nothing is "current".
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"

namespace gptq {

// An op's name and sizes, which are: linear and add_linear m, n, k, gated_linear the same of each side; attention
// tokens, heads, head_dim, tokens of a sequence (mean); add_gram tokens, n; targets, add_product_norms and
// quantize_columns rows, n; find_grid rows, cols, group size, candidates; pack rows and cols of the codes, bits;
// permute_symmetric and factor n; all others rows and cols of the result.
struct OpCall {
  std::string_view op;
  std::array<int64_t, 4> sizes{};
  DType dtype = DType::f32;  // of the first matrix
  auto operator<=>(const OpCall&) const = default;
};

// The two linears of a gated MLP and what follows them. Biases [1, n] may be empty, and so may `up`.
struct GatedWeights {
  ConstMatrixView gate, gate_bias, up, up_bias;  // [n, k], [1, n]
  Activation activation = Activation::silu;
};

class Backend : public Ops, public Memory {
 public:
  // "cpu", "cuda:1": the name by which open_backend() finds it.
  virtual std::string name() const = 0;
  // One line for people: model name, threads, instruction set.
  virtual std::string description() const = 0;
  // Copies a dense host array of to.rows * to.cols elements to the device, or back. Both return when the host side is
  // free to use; an array in staging_memory() is left alone until it is released, which may be at once.
  void upload(MatrixView to, const void* from);
  void download(void* to, ConstMatrixView from);
  // Bytes that crossed in either direction so far.
  struct Traffic {
    int64_t uploaded = 0, downloaded = 0;
  };
  Traffic traffic() const { return traffic_; }
  // Returns when all queued work is done; throws the DeviceError of work that failed.
  virtual void wait() = 0;
  // Gives memory that is held for reuse back to the device.
  virtual void trim() noexcept {}
  struct MemoryUse {
    int64_t bytes = 0, held = 0, peak = 0;  // taken from the device now; of these held for reuse; most ever taken
  };
  virtual MemoryUse memory_use() const = 0;
  // Tokens of a batch that is computed in `computed`: enough for matrix products at full speed, few enough for small
  // temporaries.
  virtual int64_t batch_tokens(DType /*computed*/) const { return 2048; }
  // Memory of its own that it takes when work begins, beside its matrices.
  virtual int64_t workspace_bytes() const { return 0; }
  // What an op of these sizes takes for itself while it runs, beyond that.
  virtual int64_t scratch_bytes(const OpCall& /*call*/) const { return 0; }
  // Host memory from which, and to which, this device copies fastest; any thread may take of it. What it holds for
  // reuse outlives trim(), as blocks are read into it all the time, and goes with trim_staging().
  virtual Memory& staging_memory() { return host_memory(); }
  virtual void trim_staging() noexcept {}
  // What the ops that follow are part of, a literal such as "forward": for profiles and device_seconds().
  virtual void set_stage(const char* /*stage*/) {}
  struct DeviceSeconds {
    std::string stage, op;
    double seconds = 0;
  };
  // Where the device's time went so far, if it keeps a clock; "idle" is time without work.
  virtual std::vector<DeviceSeconds> device_seconds() { return {}; }
  // The dtype in which a model stored as `stored` is computed here, unless the user asks otherwise.
  virtual DType compute_dtype(DType stored) const = 0;
  // And the one of the hidden states between its blocks, to which every block adds.
  virtual DType residual_dtype(DType computed) const { return computed; }

  // y = activation(x gate' + gate_bias) * (x up' + up_bias), each side rounded to y's dtype first: linear() and gate(),
  // bit for bit.   x [m, k], y [m, n]
  virtual void gated_linear(ConstMatrixView x, const GatedWeights& weights, MatrixView y);
  // y += factor (x w' + bias), the bracket rounded to x's dtype first: linear() and add(), bit for bit.
  // x [m, k], w [n, k], bias [1, n] or empty, y [m, n]
  virtual void add_linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, float factor, MatrixView y);
  // Whether these are one op here, without a matrix for what their linears give, for models computed in `dtype`.
  virtual bool fuses_linears(DType /*dtype*/) const { return false; }

  // Calls per op that ran on the host through reference() because the backend lacks them. Slowness is never silent.
  const std::map<std::string, int64_t>& fallbacks() const { return fallbacks_; }

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

 protected:
  // What upload() and download() do, besides counting.
  virtual void copy_in(MatrixView to, const void* from) = 0;
  virtual void copy_out(void* to, ConstMatrixView from) = 0;

 private:
  std::map<std::string, int64_t> fallbacks_;
  Traffic traffic_;
};

struct BackendOptions {
  int threads = 0;           // host threads of a CPU backend; 0 means all cores
  int64_t memory_bytes = 0;  // that may be allocated; 0: what the device has
  // Where host memory comes from, instead of host_memory(): that of devices which compute there, and staging memory.
  Memory* memory = nullptr;
};

// Opens a device by its name: "cpu", "sim:0" (a simulated accelerator: the CPU behind a memory of its own). Throws
// InputError, listing what there is, for a name that this build or machine lacks.
std::unique_ptr<Backend> open_backend(std::string_view name, const BackendOptions& options = {});

struct DeviceInfo {
  std::string name, description;  // "cuda:0", "NVIDIA H100 80GB HBM3"
  int64_t total_bytes = 0, free_bytes = 0;
};

// What this machine has for this build: accelerators first, "cpu" last. Simulated ones are not listed.
std::vector<DeviceInfo> list_devices();

// A matrix of `memory` holding the host values (dense, rows * cols of dtype).
Matrix to_device(Backend& backend, DType dtype, int64_t rows, int64_t cols, const void* host);

// The view's elements as a dense host vector. T must be the element type.
template <typename T>
std::vector<T> to_host(Backend& backend, ConstMatrixView view) {
  std::vector<T> host(static_cast<size_t>(view.size()));
  backend.download(host.data(), view);
  return host;
}

}  // namespace gptq
