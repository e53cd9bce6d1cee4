#include "backend/opencl/opencl_backend.h"

#include <utility>

#include "backend/all_ops.h"
#include "base/error.h"

namespace gptq {
namespace opencl {
namespace {

std::string device_name(int index) { return cat("xpu:", index); }

Context make_context(const DeviceFacts& device, const std::string& name) {
  cl_int result = CL_SUCCESS;
  Context context(api().clCreateContext(nullptr, 1, &device.id, nullptr, nullptr, &result));
  check(result, name, "opening it");
  return context;
}

Queue make_queue(cl_context context, const DeviceFacts& device, const std::string& name) {
  cl_int result = CL_SUCCESS;
  Queue queue(api().clCreateCommandQueue(context, device.id, 0, &result));
  check(result, name, "opening it");
  return queue;
}

}  // namespace

OpenclBackend::OpenclBackend(int index, DeviceFacts device, const BackendOptions& options)
    : name_(device_name(index)),
      device_(std::move(device)),
      staging_(options.memory != nullptr ? *options.memory : host_memory()),
      context_(make_context(device_, name_)),
      queue_(make_queue(context_.get(), device_, name_)),
      memory_(context_.get(), device_, name_),
      limited_(pool_, name_, options.memory_bytes),
      programs_(context_.get(), device_, name_),
      xpu_(*this, device_, name_, memory_, programs_, queue_.get()) {}

OpenclBackend::~OpenclBackend() { api().clFinish(queue_.get()); }

std::string OpenclBackend::arithmetic() const { return cat("opencl, ", description()); }

void OpenclBackend::compute(const ops::OpRef& op) {
  if (!all_ops<XpuOps>().run(xpu_, op)) fall_back(op);
}

void OpenclBackend::wait() { check(api().clFinish(queue_.get()), name_, "waiting for it"); }

void OpenclBackend::trim() noexcept {
  api().clFinish(queue_.get());  // a failure is reported by the next call
  pool_.trim();
}

}  // namespace opencl

std::unique_ptr<Backend> open_opencl(int index, const BackendOptions& options) {
  const std::string name = opencl::device_name(index);
  opencl::DeviceList found = opencl::find_devices();
  const auto count = static_cast<int>(found.devices.size());
  if (count == 0) throw InputError(cat(name, ": ", found.why_none));
  if (index >= count) {
    throw InputError(cat(name, ": this machine shows ", count,
                         count == 1 ? " OpenCL device, xpu:0" : cat(" OpenCL devices, xpu:0 to xpu:", count - 1)));
  }
  opencl::DeviceFacts& device = found.devices[static_cast<size_t>(index)];
  if (const std::string reason = opencl::why_unusable(device); !reason.empty())
    throw InputError(cat(name, " (", device.model, "): ", reason, ", or use the device cpu"));
  return std::make_unique<opencl::OpenclBackend>(index, std::move(device), options);
}

std::vector<DeviceInfo> list_opencl() {
  std::vector<DeviceInfo> devices;
  int index = 0;
  for (const opencl::DeviceFacts& device : opencl::find_devices().devices) {
    const std::string name = opencl::device_name(index++);
    // OpenCL does not say how much of its memory is free.
    if (opencl::why_unusable(device).empty())
      devices.push_back({name, device.description(), device.memory, device.memory});
  }
  return devices;
}

}  // namespace gptq
