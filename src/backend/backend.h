// A device: its memory, its in-order queue and run(), through which every op is computed. Supply the pure virtual
// functions and every op works: compute() falls back to other ops or to the host; override it for speed. Several
// devices are several objects; nothing is "current".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "backend/device.h"
#include "ops/ops.h"

namespace gptq {

class Backend : public Memory {
 public:
  // "cpu", "cuda:1": the name by which open_backend() finds it.
  virtual std::string name() const = 0;
  // One line for people: model name, threads, instruction set.
  virtual std::string description() const = 0;
  // One line with all that the bits of its results depend on: kind of device, instruction set, libraries.
  virtual std::string arithmetic() const { return description(); }
  DeviceTraits traits() const { return traits_of(name()); }

  // Queues the op, or computes it at once. Returns the op's Result, where it has one, when that is known.
  template <typename Op>
  ops::ResultOf<Op> run(const Op& op) {
    if constexpr (std::is_void_v<ops::ResultOf<Op>>) {
      compute(ops::OpRef(op));
    } else {
      ops::ResultOf<Op> result = Op::kExpected;
      compute(ops::OpRef(op, &result));
      return result;
    }
  }
  // run() for an op of any type.
  virtual void compute(const ops::OpRef& op) { fall_back(op); }
  // Calls per op that ran on the host because the backend lacks the op; reports list them.
  const std::map<std::string, int64_t>& fallbacks() const { return fallbacks_; }

  // Copies a dense host array of to.rows * to.cols elements to the device, or back. Both return when the host side is
  // free to use; an array in staging_memory() must not be written until it is released, which may be at once.
  void upload(MatrixView to, const void* from);
  void download(void* to, ConstMatrixView from);
  // Bytes copied in either direction so far.
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
  // Memory that it takes for itself when work begins, in addition to its matrices.
  virtual int64_t workspace_bytes() const { return 0; }
  // Memory that a call takes for itself while it runs, in addition to that.
  virtual int64_t scratch_bytes(const OpCall& /*call*/) const { return 0; }
  // Host memory from which, and to which, this device copies fastest; any thread may allocate from it. Blocks that it
  // holds for reuse outlive trim(), because weights are read into them all the time, and go with trim_staging().
  virtual Memory& staging_memory() { return host_memory(); }
  virtual void trim_staging() noexcept {}

  // The stage that the ops that follow belong to, a literal such as "forward": for profiles and device_seconds().
  virtual void set_stage(const char* /*stage*/) {}
  struct DeviceSeconds {
    std::string stage, op;
    double seconds = 0;
  };
  // Where the device's time went so far, if it keeps a clock; "idle" is time without work.
  virtual std::vector<DeviceSeconds> device_seconds() { return {}; }

  // Tokens of a batch that is computed in `computed`: enough for matrix products at full speed, few enough for small
  // temporaries.
  virtual int64_t batch_tokens(DType /*computed*/) const { return 2048; }
  // The dtype in which a model stored as `stored` is computed here, unless the user asks otherwise.
  virtual DType compute_dtype(DType stored) const = 0;
  // The dtype of the hidden states between its blocks, to which every block adds.
  virtual DType residual_dtype(DType computed) const { return computed; }
  // Whether GatedLinear and AddLinear are one op here, without a matrix between, for models computed in `dtype`.
  virtual bool fuses_linears(DType /*dtype*/) const { return false; }

 protected:
  // Computes an op by others, where it can be composed of them, or else on the host, which is counted.
  void fall_back(const ops::OpRef& op);
  // upload() and download() without the counting.
  virtual void copy_in(MatrixView to, const void* from) = 0;
  virtual void copy_out(void* to, ConstMatrixView from) = 0;

 private:
  std::map<std::string, int64_t> fallbacks_;
  Traffic traffic_;
};

// Whether an op can be computed by others.
template <typename Op>
constexpr bool is_composed() {
  return requires(const Op& op, Backend& backend) { op.compose(backend); };
}

// A matrix of `backend` holding the host values (dense, rows * cols of dtype).
Matrix to_device(Backend& backend, DType dtype, int64_t rows, int64_t cols, const void* host);

// A copy in memory of `backend`, in the same dtype; empty for an empty view.
Matrix copy_of(Backend& backend, ConstMatrixView from);

// A matrix of zeros.
Matrix zeros(Backend& backend, DType dtype, int64_t rows, int64_t cols);

// The view's elements as a dense host vector. T must be the element type.
template <typename T>
std::vector<T> to_host(Backend& backend, ConstMatrixView view) {
  std::vector<T> host(static_cast<size_t>(view.size()));
  backend.download(host.data(), view);
  return host;
}

}  // namespace gptq
