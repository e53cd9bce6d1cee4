// Objects of OpenCL, released when their owner goes.
#pragma once

#include <memory>
#include <type_traits>

#include "backend/opencl/api.h"

namespace gptq::opencl {

template <auto release>
struct Release {
  template <typename Object>
  void operator()(Object* object) const {
    (api().*release)(object);
  }
};
template <typename Handle, auto release>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Release<release>>;

using Context = Owned<cl_context, &Api::clReleaseContext>;
using Queue = Owned<cl_command_queue, &Api::clReleaseCommandQueue>;
using Program = Owned<cl_program, &Api::clReleaseProgram>;
using Kernel = Owned<cl_kernel, &Api::clReleaseKernel>;
using Event = Owned<cl_event, &Api::clReleaseEvent>;

}  // namespace gptq::opencl
