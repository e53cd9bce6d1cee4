// The kernels of one device, compiled when they are first asked for, a file at a time.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "backend/opencl/device_list.h"
#include "backend/opencl/owned.h"

namespace gptq::opencl {

// A kernel of kernels/<file>.cl, compiled with `options`, such as "-DSLICE=64".
struct KernelName {
  const char *file, *kernel;
  std::string options = {};
};

class Programs {
 public:
  Programs(cl_context context, const DeviceFacts& device, std::string name)
      : context_(context), device_(device), name_(std::move(name)) {}

  // Throws DeviceError with the first line of the compiler's log.
  cl_kernel find(const KernelName& name);

 private:
  cl_program program(const KernelName& name);

  const cl_context context_;
  const DeviceFacts& device_;
  const std::string name_;
  std::map<std::string, Program> programs_;
  std::map<std::string, Kernel> kernels_;
};

}  // namespace gptq::opencl
