#include "backend/opencl/programs.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "backend/opencl/kernels/sources.h"
#include "base/error.h"

namespace gptq::opencl {
namespace {

struct Source {
  std::string_view file;
  std::string_view (*text)();
};
constexpr Source kSources[] = {
#define GPTQ_OPENCL_SOURCE(file) {#file, opencl_##file},
    GPTQ_OPENCL_SOURCES(GPTQ_OPENCL_SOURCE)
#undef GPTQ_OPENCL_SOURCE
};

std::string_view text_of(std::string_view file) {
  const auto* found =
      std::find_if(std::begin(kSources), std::end(kSources), [&](const Source& source) { return source.file == file; });
  assert(found != std::end(kSources));
  return found->text();
}

// The first line of a log that names an error, or the first one with words.
std::string main_line(const std::string& log) {
  std::string first;
  for (size_t start = 0; start < log.size();) {
    const size_t end = std::min(log.find('\n', start), log.size());
    std::string line = log.substr(start, end - start);
    if (line.find("error") != std::string::npos) return line;
    if (first.empty() && line.find_first_not_of(" \t\r") != std::string::npos) first = line;
    start = end + 1;
  }
  return first.empty() ? "its compiler does not say why" : first;
}

}  // namespace

cl_program Programs::program(const KernelName& name) {
  Program& program = programs_[cat(name.file, " ", name.options)];
  if (program != nullptr) return program.get();
  const std::array texts = {text_of("common"), text_of(name.file)};
  std::array<const char*, texts.size()> starts = {};
  std::array<size_t, texts.size()> lengths = {};
  for (size_t i = 0; i < texts.size(); ++i) starts[i] = texts[i].data(), lengths[i] = texts[i].size();
  cl_int result = CL_SUCCESS;
  Program made(
      api().clCreateProgramWithSource(context_, cl_uint{texts.size()}, starts.data(), lengths.data(), &result));
  check(result, name_, "loading kernels");
  const std::string options = cat(
      "-cl-std=CL1.2 ", device_.is_rounding_exactly ? "-cl-fp32-correctly-rounded-divide-sqrt -DEXACT_DIVISION " : "",
      device_.has_doubles ? "-DHAS_DOUBLES " : "",
      device_.matrix_lanes > 0 && !device_.emulates_matrices ? cat("-DREGISTER_LANES=", device_.matrix_lanes, " ") : "",
      name.options);
  result = api().clBuildProgram(made.get(), 1, &device_.id, options.c_str(), nullptr, nullptr);
  if (result == CL_BUILD_PROGRAM_FAILURE) {
    size_t bytes = 0;
    api().clGetProgramBuildInfo(made.get(), device_.id, CL_PROGRAM_BUILD_LOG, 0, nullptr, &bytes);
    std::string log(bytes, '\0');
    api().clGetProgramBuildInfo(made.get(), device_.id, CL_PROGRAM_BUILD_LOG, bytes, log.data(), nullptr);
    throw DeviceError(
        cat(name_, " (", device_.description(), ") does not compile the kernels of ", name.file, ": ", main_line(log)));
  }
  check(result, name_, cat("compiling the kernels of ", name.file));
  return (program = std::move(made)).get();
}

cl_kernel Programs::find(const KernelName& name) {
  Kernel& kernel = kernels_[cat(name.kernel, " ", name.options)];
  if (kernel == nullptr) {
    cl_int result = CL_SUCCESS;
    Kernel made(api().clCreateKernel(program(name), name.kernel, &result));
    check(result, name_, cat("finding the kernel ", name.kernel));
    kernel = std::move(made);
  }
  return kernel.get();
}

}  // namespace gptq::opencl
