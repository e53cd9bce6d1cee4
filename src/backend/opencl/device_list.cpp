#include "backend/opencl/device_list.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/error.h"

namespace gptq::opencl {
namespace {

template <typename Value>
Value info(cl_device_id device, cl_device_info which) {
  Value value = {};
  api().clGetDeviceInfo(device, which, sizeof(value), &value, nullptr);
  return value;
}

// Words with single spaces between them.
std::string tidy(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '\0' || (c == ' ' && (result.empty() || result.back() == ' '))) continue;
    result += c;
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

std::string text(cl_device_id device, cl_device_info which) {
  size_t bytes = 0;
  api().clGetDeviceInfo(device, which, 0, nullptr, &bytes);
  std::string value(bytes, '\0');
  api().clGetDeviceInfo(device, which, bytes, value.data(), nullptr);
  return tidy(value);
}

// Sub-groups that multiply matrices. The variable GPTQ_OPENCL_MATRIX is for tests: "8" or "16" emulates sub-groups of
// that many threads on a device that has sub-groups and no matrix units.
void find_matrix_units(DeviceFacts& facts) {
  constexpr cl_device_info kSizes = 0x4108;  // CL_DEVICE_SUB_GROUP_SIZES_INTEL
  const std::string extensions = cat(" ", text(facts.id, CL_DEVICE_EXTENSIONS), " ");
  const auto has = [&](const char* name) { return extensions.find(cat(" ", name, " ")) != std::string::npos; };
  if (!has("cl_intel_subgroups") || !has("cl_intel_required_subgroup_size")) return;
  std::array<size_t, 16> sizes = {};
  size_t bytes = 0;
  if (api().clGetDeviceInfo(facts.id, kSizes, sizeof(sizes), sizes.data(), &bytes) != CL_SUCCESS) return;
  const char* emulated = std::getenv("GPTQ_OPENCL_MATRIX");
  const size_t wanted = emulated == nullptr ? 0 : std::string_view(emulated) == "8" ? 8 : 16;
  facts.emulates_matrices = wanted != 0;
  if (wanted == 0 && !has("cl_intel_subgroup_matrix_multiply_accumulate")) return;
  for (const size_t lanes : {16, 8}) {  // the narrowest is the units' own
    const bool there = std::find(sizes.begin(), sizes.end(), lanes) != sizes.end();
    if (there && (wanted == 0 || wanted == lanes)) facts.matrix_lanes = static_cast<int>(lanes);
  }
}

DeviceFacts facts_of(cl_device_id id) {
  const bool exact =
      (info<cl_device_fp_config>(id, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) != 0;
  DeviceFacts facts{.id = id,
                    .model = text(id, CL_DEVICE_NAME),
                    .version = text(id, CL_DEVICE_VERSION),
                    .driver = text(id, CL_DRIVER_VERSION),
                    .is_cpu = (info<cl_device_type>(id, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU) != 0,
                    .is_rounding_exactly = exact,
                    .has_doubles = info<cl_device_fp_config>(id, CL_DEVICE_DOUBLE_FP_CONFIG) != 0 &&
                                   std::getenv("GPTQ_OPENCL_NO_DOUBLES") == nullptr,  // for tests
                    .memory = static_cast<int64_t>(info<cl_ulong>(id, CL_DEVICE_GLOBAL_MEM_SIZE)),
                    .largest_block = static_cast<int64_t>(info<cl_ulong>(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE)),
                    .local_memory = static_cast<int64_t>(info<cl_ulong>(id, CL_DEVICE_LOCAL_MEM_SIZE)),
                    .compute_units = static_cast<int64_t>(info<cl_uint>(id, CL_DEVICE_MAX_COMPUTE_UNITS)),
                    .largest_group = static_cast<int64_t>(info<size_t>(id, CL_DEVICE_MAX_WORK_GROUP_SIZE))};
  find_matrix_units(facts);
  return facts;
}

std::string_view wanted() {
  const char* value = std::getenv("GPTQ_OPENCL_DEVICES");
  return value == nullptr ? "" : value;
}

}  // namespace

std::string DeviceFacts::description() const {
  return cat(
      model, ", ", version, ", driver ", driver,
      matrix_lanes == 0 ? "" : cat(", ", emulates_matrices ? "emulated " : "", "matrix units of ", matrix_lanes));
}

DeviceList find_devices() {
  if (wanted() == "none") return {{}, "GPTQ_OPENCL_DEVICES=none hides OpenCL's devices"};
  if (find_api() == nullptr) {
    return {{},
            "this machine has no libOpenCL.so.1; install an OpenCL loader and the driver of your GPU, or use the "
            "device cpu"};
  }
  constexpr cl_uint kNvidia = 0x10de;
  const bool all = wanted() == "all";
  DeviceList found;
  bool left_out = false;
  cl_uint count = 0;
  api().clGetPlatformIDs(0, nullptr, &count);
  std::vector<cl_platform_id> platforms(count);
  if (count > 0) api().clGetPlatformIDs(count, platforms.data(), nullptr);
  for (const cl_platform_id platform : platforms) {
    cl_uint devices = 0;
    if (api().clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &devices) != CL_SUCCESS || devices == 0)
      continue;
    std::vector<cl_device_id> ids(devices);
    api().clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, devices, ids.data(), nullptr);
    for (const cl_device_id id : ids) {
      DeviceFacts facts = facts_of(id);
      if (all || (!facts.is_cpu && info<cl_uint>(id, CL_DEVICE_VENDOR_ID) != kNvidia))
        found.devices.push_back(std::move(facts));
      else
        left_out = true;
    }
  }
  if (found.devices.empty()) {
    found.why_none = left_out ? "OpenCL shows CPUs and NVIDIA GPUs only here, which are the devices cpu and cuda:N "
                                "(GPTQ_OPENCL_DEVICES=all takes them as xpu:N)"
                              : "OpenCL shows no device; install the driver of your GPU, or use the device cpu";
  }
  return found;
}

std::string why_unusable(const DeviceFacts& device) {
  int major = 0, minor = 0;
  if (std::sscanf(device.version.c_str(), "OpenCL %d.%d", &major, &minor) != 2 || major * 10 + minor < 12)
    return cat("its driver has ", device.version, " and this program needs 1.2: update the driver");
  if (info<cl_bool>(device.id, CL_DEVICE_AVAILABLE) == CL_FALSE) return "its driver says that it is not available";
  if (info<cl_bool>(device.id, CL_DEVICE_COMPILER_AVAILABLE) == CL_FALSE)
    return "its driver has no compiler: install the full driver";
  constexpr int64_t kThreads = 256;
  if (device.largest_group < kThreads)
    return cat("it has work-groups of ", device.largest_group, " at most and this program needs ", kThreads);
  return {};
}

}  // namespace gptq::opencl
