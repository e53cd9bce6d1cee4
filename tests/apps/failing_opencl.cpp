// A libOpenCL.so.1 with one device, which fails in the way that the variable FAKE_OPENCL names: "none" (it is not
// there), "old" (its driver has OpenCL 1.1), "no compiler", "small" (its work-groups are), "kernels" (they do not
// compile), "lost" (the first kernel ends it) or "full" (it has no memory). Commands do nothing.
#define CL_TARGET_OPENCL_VERSION 120
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <CL/cl.h>

namespace {

bool fails_by(const char* way) {
  const char* asked = std::getenv("FAKE_OPENCL");
  return asked != nullptr && std::strcmp(asked, way) == 0;
}

// Handles are addresses that nobody reads.
int things[8];
template <typename Handle>
Handle handle(int which) {
  return reinterpret_cast<Handle>(&things[which]);
}

cl_int give(const void* value, size_t bytes, size_t room, void* to, size_t* needed) {
  if (needed != nullptr) *needed = bytes;
  if (to != nullptr) std::memcpy(to, value, std::min(bytes, room));
  return CL_SUCCESS;
}
cl_int give_text(const std::string& text, size_t room, void* to, size_t* needed) {
  return give(text.c_str(), text.size() + 1, room, to, needed);
}
template <typename Value>
cl_int give_value(Value value, size_t room, void* to, size_t* needed) {
  return give(&value, sizeof(value), room, to, needed);
}

}  // namespace

extern "C" {

cl_int clGetPlatformIDs(cl_uint, cl_platform_id* platforms, cl_uint* count) {
  if (count != nullptr) *count = 1;
  if (platforms != nullptr) *platforms = handle<cl_platform_id>(0);
  return CL_SUCCESS;
}
cl_int clGetPlatformInfo(cl_platform_id, cl_platform_info, size_t room, void* to, size_t* needed) {
  return give_text("Fake", room, to, needed);
}
cl_int clGetDeviceIDs(cl_platform_id, cl_device_type, cl_uint, cl_device_id* devices, cl_uint* count) {
  if (fails_by("none")) return CL_DEVICE_NOT_FOUND;
  if (count != nullptr) *count = 1;
  if (devices != nullptr) *devices = handle<cl_device_id>(1);
  return CL_SUCCESS;
}
cl_int clGetDeviceInfo(cl_device_id, cl_device_info which, size_t room, void* to, size_t* needed) {
  switch (which) {
    case CL_DEVICE_NAME:
      return give_text("Fake GPU", room, to, needed);
    case CL_DEVICE_VERSION:
      return give_text(fails_by("old") ? "OpenCL 1.1 Fake" : "OpenCL 1.2 Fake", room, to, needed);
    case CL_DRIVER_VERSION:
      return give_text("7.7", room, to, needed);
    case CL_DEVICE_EXTENSIONS:
      return give_text("", room, to, needed);
    case CL_DEVICE_TYPE:
      return give_value<cl_device_type>(CL_DEVICE_TYPE_GPU, room, to, needed);
    case CL_DEVICE_AVAILABLE:
      return give_value<cl_bool>(CL_TRUE, room, to, needed);
    case CL_DEVICE_COMPILER_AVAILABLE:
      return give_value<cl_bool>(fails_by("no compiler") ? CL_FALSE : CL_TRUE, room, to, needed);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
      return give_value<size_t>(fails_by("small") ? 64 : 1024, room, to, needed);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
      return give_value<cl_ulong>(cl_ulong{1} << 32, room, to, needed);
    case CL_DEVICE_LOCAL_MEM_SIZE:
      return give_value<cl_ulong>(65536, room, to, needed);
    case CL_DEVICE_MAX_COMPUTE_UNITS:
      return give_value<cl_uint>(4, room, to, needed);
    default:
      return room <= sizeof(cl_ulong) ? give_value<cl_ulong>(0, room, to, needed) : CL_INVALID_VALUE;
  }
}
cl_context clCreateContext(const cl_context_properties*, cl_uint, const cl_device_id*,
                           void(CL_CALLBACK*)(const char*, const void*, size_t, void*), void*, cl_int* result) {
  *result = CL_SUCCESS;
  return handle<cl_context>(2);
}
cl_command_queue clCreateCommandQueue(cl_context, cl_device_id, cl_command_queue_properties, cl_int* result) {
  *result = CL_SUCCESS;
  return handle<cl_command_queue>(3);
}
cl_mem clCreateBuffer(cl_context, cl_mem_flags, size_t, void*, cl_int* result) {
  *result = fails_by("full") ? CL_MEM_OBJECT_ALLOCATION_FAILURE : CL_SUCCESS;
  return fails_by("full") ? nullptr : handle<cl_mem>(4);
}
cl_program clCreateProgramWithSource(cl_context, cl_uint, const char**, const size_t*, cl_int* result) {
  *result = CL_SUCCESS;
  return handle<cl_program>(5);
}
cl_int clBuildProgram(cl_program, cl_uint, const cl_device_id*, const char*, void(CL_CALLBACK*)(cl_program, void*),
                      void*) {
  return fails_by("kernels") ? CL_BUILD_PROGRAM_FAILURE : CL_SUCCESS;
}
cl_int clGetProgramBuildInfo(cl_program, cl_device_id, cl_program_build_info, size_t room, void* to, size_t* needed) {
  return give_text("warning: unused\n12:3: error: no such word\n1 error", room, to, needed);
}
cl_kernel clCreateKernel(cl_program, const char*, cl_int* result) {
  *result = CL_SUCCESS;
  return handle<cl_kernel>(6);
}
cl_int clSetKernelArg(cl_kernel, cl_uint, size_t, const void*) { return CL_SUCCESS; }
cl_int clEnqueueNDRangeKernel(cl_command_queue, cl_kernel, cl_uint, const size_t*, const size_t*, const size_t*,
                              cl_uint, const cl_event*, cl_event*) {
  return fails_by("lost") ? CL_DEVICE_NOT_AVAILABLE : CL_SUCCESS;
}
cl_int clEnqueueReadBuffer(cl_command_queue, cl_mem, cl_bool, size_t, size_t, void*, cl_uint, const cl_event*,
                           cl_event*) {
  return CL_SUCCESS;
}
cl_int clEnqueueWriteBuffer(cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void*, cl_uint, const cl_event*,
                            cl_event* event) {
  if (event != nullptr) *event = handle<cl_event>(7);
  return CL_SUCCESS;
}
cl_int clEnqueueReadBufferRect(cl_command_queue, cl_mem, cl_bool, const size_t*, const size_t*, const size_t*, size_t,
                               size_t, size_t, size_t, void*, cl_uint, const cl_event*, cl_event*) {
  return CL_SUCCESS;
}
cl_int clEnqueueWriteBufferRect(cl_command_queue, cl_mem, cl_bool, const size_t*, const size_t*, const size_t*, size_t,
                                size_t, size_t, size_t, const void*, cl_uint, const cl_event*, cl_event*) {
  return CL_SUCCESS;
}
cl_int clGetEventInfo(cl_event, cl_event_info, size_t room, void* to, size_t* needed) {
  return give_value<cl_int>(CL_COMPLETE, room, to, needed);
}
cl_int clFinish(cl_command_queue) { return CL_SUCCESS; }
cl_int clFlush(cl_command_queue) { return CL_SUCCESS; }
cl_int clReleaseCommandQueue(cl_command_queue) { return CL_SUCCESS; }
cl_int clReleaseContext(cl_context) { return CL_SUCCESS; }
cl_int clReleaseEvent(cl_event) { return CL_SUCCESS; }
cl_int clReleaseKernel(cl_kernel) { return CL_SUCCESS; }
cl_int clReleaseMemObject(cl_mem) { return CL_SUCCESS; }
cl_int clReleaseProgram(cl_program) { return CL_SUCCESS; }

}  // extern "C"
