#include "backend/opencl/api.h"

#include <optional>

#include <dlfcn.h>

#include "base/error.h"

namespace gptq::opencl {
namespace {

std::optional<Api> load() {
  void* library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::nullopt;
  Api api;
  bool complete = true;
  const auto find = [&]<typename Function>(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));  // NOLINT: what dlsym is for
    complete = complete && function != nullptr;
  };
#define GPTQ_OPENCL_FIND(function) find(#function, api.function);
  GPTQ_OPENCL_FUNCTIONS(GPTQ_OPENCL_FIND)
#undef GPTQ_OPENCL_FIND
  return complete ? std::optional(api) : std::nullopt;
}

struct Error {
  cl_int code;
  const char* name;
};
// Those that a correct program can meet.
constexpr Error kErrors[] = {{CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE"},
                             {CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE"},
                             {CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
                             {CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES"},
                             {CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY"},
                             {CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE"},
                             {CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, "a command before it failed"},
                             {CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE"},
                             {CL_INVALID_CONTEXT, "CL_INVALID_CONTEXT"},
                             {CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE"},
                             {CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE"}};

std::string name_of(cl_int result) {
  for (const auto& [code, name] : kErrors) {
    if (code == result) return name;
  }
  return cat("OpenCL's error ", result);
}

}  // namespace

const Api* find_api() {
  static const std::optional<Api> api = load();
  return api ? &*api : nullptr;
}

void check(cl_int result, const std::string& device, std::string_view doing) {
  if (result == CL_SUCCESS) return;
  if (result == CL_MEM_OBJECT_ALLOCATION_FAILURE)
    throw OutOfMemory(cat(device, " is out of memory: ", doing, ": its driver found none for a matrix"));
  const bool lost = result == CL_DEVICE_NOT_AVAILABLE || result == CL_OUT_OF_RESOURCES ||
                    result == CL_INVALID_COMMAND_QUEUE || result == CL_INVALID_CONTEXT;
  throw DeviceError(cat(device, ": ", doing, ": ", name_of(result),
                        lost ? "; the device may be lost: its driver's log says why" : ""));
}

}  // namespace gptq::opencl
