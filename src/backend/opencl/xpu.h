// An OpenCL device as its ops use it: a queue of kernels in order, and memory for temporaries. Ops queue kernels; they
// do not wait, but where an op has a result. Matrices have no alignment beyond their elements'.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/op_table.h"
#include "backend/opencl/opencl_memory.h"
#include "backend/opencl/programs.h"
#include "base/rounding.h"
#include "tensor/matrix.h"

namespace gptq {

class Backend;

namespace opencl {

// Work-groups, and the threads of each. Nothing runs where one of them is 0.
struct Grid {
  std::array<int64_t, 3> groups{1, 1, 1}, threads{1, 1, 1};
};
// A thread for each element: get_global_id(0) is its column and get_global_id(1) its row. Some threads lie outside.
inline Grid elements(int64_t rows, int64_t cols) {
  constexpr int64_t kWide = 64, kHigh = 4;
  return {{pieces_of(cols, kWide), pieces_of(rows, kHigh), 1}, {kWide, kHigh, 1}};
}
// A thread for each of `count` things.
inline Grid line(int64_t count) {
  constexpr int64_t kThreads = 64;
  return {{pieces_of(count, kThreads), 1, 1}, {kThreads, 1, 1}};
}

// An argument of a kernel: memory of its work-group.
struct LocalBytes {
  size_t bytes;
};

class Xpu {
 public:
  // The backend, whose memory and transfers it uses, and the others must outlive it.
  Xpu(Backend& backend, const DeviceFacts& device, std::string name, const DeviceMemory& device_memory,
      Programs& programs, cl_command_queue queue)
      : backend_(backend),
        device_(device),
        name_(std::move(name)),
        device_memory_(device_memory),
        programs_(programs),
        queue_(queue) {}

  const std::string& name() const { return name_; }
  const DeviceFacts& device() const { return device_; }
  Memory& memory();

  // Queues a kernel. Arguments: a view, which is two arguments (common.cl: MATRIX), float, int32_t, int64_t, a struct
  // that the kernel's file has too, or LocalBytes.
  template <typename... Arguments>
  void launch(const KernelName& name, const Grid& grid, const Arguments&... arguments) {
    if (!begin(name, grid)) return;
    (argument(arguments), ...);
    enqueue(name, grid);
  }

  // Host values on the device, as words of 32 bits.
  template <typename T>
  Matrix on_device(std::span<const T> values) {
    return copy_of(values.data(), values.size_bytes());
  }
  // Copies a dense matrix to the host, once all that is queued is done.
  void fetch(const Matrix& matrix, void* to);

  // Copies in and out as Backend has them.
  void write(MatrixView to, const void* from);
  void read(void* to, ConstMatrixView from);

 private:
  bool begin(const KernelName& name, const Grid& grid);
  void enqueue(const KernelName& name, const Grid& grid);
  void argument(ConstMatrixView view);
  void argument(const MatrixView& view) { argument(ConstMatrixView(view)); }
  void argument(const Matrix& matrix) { argument(matrix.view()); }
  void argument(const LocalBytes& local) { set(nullptr, local.bytes); }
  template <typename Value>
  void argument(const Value& value) {
    set(&value, sizeof(value));
  }
  void set(const void* value, size_t bytes);
  Matrix copy_of(const void* data, size_t bytes);

  Backend& backend_;
  const DeviceFacts& device_;
  const std::string name_;
  const DeviceMemory& device_memory_;
  Programs& programs_;
  const cl_command_queue queue_;
  cl_kernel kernel_ = nullptr;  // that gets arguments, and the place of the next one
  cl_uint place_ = 0;
  int64_t queued_ = 0;  // kernels so far
  // Host values whose copies are queued.
  struct Sent {
    Event copied;
    std::vector<std::byte> values;
  };
  std::deque<Sent> sent_;
};

using XpuOps = OpTable<Xpu>;
// Each adds the ops of one file: add_norm_ops() those of norms.cpp.
void add_attention_ops(XpuOps& table);
void add_column_ops(XpuOps& table);
void add_convolution_ops(XpuOps& table);
void add_copy_ops(XpuOps& table);
void add_delta_rule_ops(XpuOps& table);
void add_factor_ops(XpuOps& table);
void add_gate_ops(XpuOps& table);
void add_gram_ops(XpuOps& table);
void add_grid_ops(XpuOps& table);
void add_linear_ops(XpuOps& table);
void add_loss_ops(XpuOps& table);
void add_norm_ops(XpuOps& table);
void add_pack_ops(XpuOps& table);
void add_packed_ops(XpuOps& table);
void add_rope_ops(XpuOps& table);
void add_row_sum_ops(XpuOps& table);
void add_state_space_ops(XpuOps& table);
void add_sum_ops(XpuOps& table);
void add_symmetric_ops(XpuOps& table);

}  // namespace opencl
}  // namespace gptq
