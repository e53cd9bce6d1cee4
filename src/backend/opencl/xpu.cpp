#include "backend/opencl/xpu.h"

#include <algorithm>
#include <cstring>

#include "backend/backend.h"
#include "base/error.h"

namespace gptq::opencl {
namespace {

// Place of common.cl.
struct Place {
  cl_long offset, stride;  // elements
  cl_int dtype, exists;
};

}  // namespace

Memory& Xpu::memory() { return backend_; }

bool Xpu::begin(const KernelName& name, const Grid& grid) {
  if (std::count(grid.groups.begin(), grid.groups.end(), 0) > 0) return false;
  kernel_ = programs_.find(name);
  place_ = 0;
  return true;
}

void Xpu::set(const void* value, size_t bytes) {
  check(api().clSetKernelArg(kernel_, place_++, bytes, value), name_, "setting an argument of a kernel");
}

void Xpu::argument(ConstMatrixView view) {
  BufferPlace place;
  if (view.data != nullptr) place = device_memory_.find(view.data);
  const Place argument = {place.offset / static_cast<int64_t>(size_of(view.dtype)), view.stride,
                          static_cast<cl_int>(view.dtype), view.empty() ? 0 : 1};
  set(place.buffer == nullptr ? nullptr : &place.buffer, sizeof(cl_mem));
  set(&argument, sizeof(argument));
}

void Xpu::enqueue(const KernelName& name, const Grid& grid) {
  std::array<size_t, 3> global = {}, local = {};
  for (size_t i = 0; i < 3; ++i) {
    local[i] = static_cast<size_t>(grid.threads[i]);
    global[i] = static_cast<size_t>(grid.groups[i]) * local[i];
  }
  check(api().clEnqueueNDRangeKernel(queue_, kernel_, 3, nullptr, global.data(), local.data(), 0, nullptr, nullptr),
        name_, name.kernel);
  constexpr int64_t kBatch = 16;  // a driver may wait for more kernels until it is told to begin
  if (++queued_ % kBatch == 0) check(api().clFlush(queue_), name_, name.kernel);
}

Matrix Xpu::copy_of(const void* data, size_t bytes) {
  while (!sent_.empty()) {
    cl_int status = CL_QUEUED;
    api().clGetEventInfo(sent_.front().copied.get(), CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status,
                         nullptr);
    if (status > CL_COMPLETE) break;
    sent_.pop_front();
  }
  Matrix matrix(memory(), DType::i32, 1, static_cast<int64_t>(bytes / sizeof(int32_t)));
  if (bytes == 0) return matrix;
  Sent& sent = sent_.emplace_back();
  sent.values.resize(bytes);
  std::memcpy(sent.values.data(), data, bytes);
  cl_event copied = nullptr;
  check(api().clEnqueueWriteBuffer(queue_, device_memory_.find(matrix.view().data).buffer, CL_FALSE, 0, bytes,
                                   sent.values.data(), 0, nullptr, &copied),
        name_, "copying to it");
  sent.copied.reset(copied);
  return matrix;
}

void Xpu::fetch(const Matrix& matrix, void* to) { backend_.download(to, matrix); }

namespace {

// A copy between a dense host array and a view, in as few commands as OpenCL has for it: copy_range(offset in the
// buffer, offset in the array, bytes) or copy_rows(Rectangle).
struct Rectangle {
  std::array<size_t, 3> origin, region;
  size_t pitch, host_pitch;
};
template <typename CopyRange, typename CopyRows>
void copy_in_parts(const BufferPlace& place, ConstMatrixView view, const CopyRange& copy_range,
                   const CopyRows& copy_rows) {
  const size_t size = size_of(view.dtype), rows = static_cast<size_t>(view.rows),
               width = static_cast<size_t>(view.cols) * size, pitch = static_cast<size_t>(view.stride) * size,
               offset = static_cast<size_t>(place.offset);
  if (rows == 1 || pitch == width) return copy_range(offset, 0, rows * width);
  // NVIDIA's driver refuses rectangles whose rows go beyond a pitch, and those whose last pitch ends after the buffer.
  const bool in_pitch = offset % pitch + width <= pitch, whole = (offset / pitch + rows) * pitch <= place.bytes;
  const size_t together = !in_pitch ? 0 : whole ? rows : rows - 1;
  if (together > 0) copy_rows(Rectangle{{offset % pitch, offset / pitch, 0}, {width, together, 1}, pitch, width});
  for (size_t r = together; r < rows; ++r) copy_range(offset + r * pitch, r * width, width);
}
constexpr std::array<size_t, 3> kNone = {0, 0, 0};

}  // namespace

void Xpu::write(MatrixView to, const void* from) {
  if (to.empty()) return;
  const BufferPlace place = device_memory_.find(to.data);
  const auto copy_range = [&](size_t offset, size_t host_offset, size_t bytes) {
    check(api().clEnqueueWriteBuffer(queue_, place.buffer, CL_TRUE, offset, bytes,
                                     static_cast<const std::byte*>(from) + host_offset, 0, nullptr, nullptr),
          name_, cat("copying ", bytes, " bytes to it"));
  };
  copy_in_parts(place, to, copy_range, [&](const Rectangle& area) {
    check(api().clEnqueueWriteBufferRect(queue_, place.buffer, CL_TRUE, area.origin.data(), kNone.data(),
                                         area.region.data(), area.pitch, 0, area.host_pitch, 0, from, 0, nullptr,
                                         nullptr),
          name_, "copying to it");
  });
}

void Xpu::read(void* to, ConstMatrixView from) {
  if (from.empty()) return;
  const BufferPlace place = device_memory_.find(from.data);
  const auto copy_range = [&](size_t offset, size_t host_offset, size_t bytes) {
    check(api().clEnqueueReadBuffer(queue_, place.buffer, CL_TRUE, offset, bytes,
                                    static_cast<std::byte*>(to) + host_offset, 0, nullptr, nullptr),
          name_, cat("copying ", bytes, " bytes from it"));
  };
  copy_in_parts(place, from, copy_range, [&](const Rectangle& area) {
    check(api().clEnqueueReadBufferRect(queue_, place.buffer, CL_TRUE, area.origin.data(), kNone.data(),
                                        area.region.data(), area.pitch, 0, area.host_pitch, 0, to, 0, nullptr, nullptr),
          name_, "copying from it");
  });
}

}  // namespace gptq::opencl
