// libOpenCL, opened when a device is first asked for: the program runs where there is none. Its functions are members
// with the library's names and signatures.
#pragma once

#include <string>
#include <string_view>

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

namespace gptq::opencl {

struct Api {
#define GPTQ_OPENCL_FUNCTIONS(FUNCTION) \
  FUNCTION(clBuildProgram)              \
  FUNCTION(clCreateBuffer)              \
  FUNCTION(clCreateCommandQueue)        \
  FUNCTION(clCreateContext)             \
  FUNCTION(clCreateKernel)              \
  FUNCTION(clCreateProgramWithSource)   \
  FUNCTION(clEnqueueNDRangeKernel)      \
  FUNCTION(clEnqueueReadBuffer)         \
  FUNCTION(clEnqueueReadBufferRect)     \
  FUNCTION(clEnqueueWriteBuffer)        \
  FUNCTION(clEnqueueWriteBufferRect)    \
  FUNCTION(clFinish)                    \
  FUNCTION(clFlush)                     \
  FUNCTION(clGetDeviceIDs)              \
  FUNCTION(clGetDeviceInfo)             \
  FUNCTION(clGetEventInfo)              \
  FUNCTION(clGetPlatformIDs)            \
  FUNCTION(clGetPlatformInfo)           \
  FUNCTION(clGetProgramBuildInfo)       \
  FUNCTION(clReleaseCommandQueue)       \
  FUNCTION(clReleaseContext)            \
  FUNCTION(clReleaseEvent)              \
  FUNCTION(clReleaseKernel)             \
  FUNCTION(clReleaseMemObject)          \
  FUNCTION(clReleaseProgram)            \
  FUNCTION(clSetKernelArg)
#define GPTQ_OPENCL_MEMBER(function) decltype(&::function) function = nullptr;  // NOLINT: a name, not a value
  GPTQ_OPENCL_FUNCTIONS(GPTQ_OPENCL_MEMBER)
#undef GPTQ_OPENCL_MEMBER
};

// The library's functions, or null where this machine lacks the library or one of them. It stays loaded.
const Api* find_api();
// The same where a device is already open, so that there is a library.
inline const Api& api() { return *find_api(); }

// Throws OutOfMemory or DeviceError saying the device, what it was doing and OpenCL's name of the error.
void check(cl_int result, const std::string& device, std::string_view doing);

}  // namespace gptq::opencl
