#include "backend/registry.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <system_error>

#include "backend/backend.h"
#include "base/error.h"

namespace gptq {

std::unique_ptr<Backend> open_cpu(int index, const BackendOptions& options);
std::unique_ptr<Backend> open_simulated(int index, const BackendOptions& options);
std::vector<DeviceInfo> list_cpu();
#if GPTQ_CUDA
std::unique_ptr<Backend> open_cuda(int index, const BackendOptions& options);
std::vector<DeviceInfo> list_cuda();
#else
constexpr std::nullptr_t open_cuda = nullptr, list_cuda = nullptr;
#endif
#if GPTQ_OPENCL
std::unique_ptr<Backend> open_opencl(int index, const BackendOptions& options);
std::vector<DeviceInfo> list_opencl();
#else
constexpr std::nullptr_t open_opencl = nullptr, list_opencl = nullptr;
#endif

namespace {

std::vector<DeviceInfo> list_none() { return {}; }

constexpr DeviceTraits kAccelerator{};
constexpr DeviceTraits kHost{
    .is_host = true, .computes_on_host = true, .memory_is_the_hosts = true, .pool_counts = true};
constexpr DeviceTraits kSimulated{
    .is_simulated = true, .computes_on_host = true, .memory_is_the_hosts = true, .pool_counts = true};

constexpr DeviceKind kKinds[] = {
    {"cuda", true, kAccelerator, open_cuda, list_cuda},
    {"xpu", true, kAccelerator, open_opencl, list_opencl},
    {"cpu", false, kHost, open_cpu, list_cpu},
    {"sim", true, kSimulated, open_simulated, list_none},
};

}  // namespace

std::span<const DeviceKind> device_kinds() { return kKinds; }

const DeviceKind* find_kind(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kKinds), std::end(kKinds), [&](const DeviceKind& kind) { return kind.name == name; });
  return found == std::end(kKinds) ? nullptr : found;
}

DeviceTraits traits_of(std::string_view device) {
  const DeviceKind* kind = find_kind(device.substr(0, device.find(':')));
  return kind == nullptr ? DeviceTraits() : kind->traits;
}

std::unique_ptr<Backend> open_backend(std::string_view name, const BackendOptions& options) {
  std::string known;
  const size_t colon = name.find(':');
  const std::string_view wanted = name.substr(0, colon);
  const std::string_view digits = colon == std::string_view::npos ? "" : name.substr(colon + 1);
  int index = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  const bool is_number = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size() && index >= 0;
  for (const DeviceKind& kind : kKinds) {
    if (kind.open == nullptr) continue;
    if (wanted == kind.name && (kind.is_numbered ? is_number : colon == std::string_view::npos))
      return kind.open(index, options);
    known += cat(known.empty() ? "" : ", ", kind.name, kind.is_numbered ? ":N" : "");
  }
  throw InputError(cat("unknown device '", name, "': this build has ", known));
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices;
  for (const DeviceKind& kind : kKinds) {
    if (kind.list == nullptr) continue;
    const std::vector<DeviceInfo> found = kind.list();
    devices.insert(devices.end(), found.begin(), found.end());
  }
  return devices;
}

std::string why_no_accelerator() {
  std::string reasons;
  for (const DeviceKind& kind : kKinds) {
    if (!kind.is_numbered || kind.traits.is_simulated) continue;
    std::string reason;
    if (kind.open == nullptr) {
      reason = cat(kind.name, ":N is not in this build");
    } else {
      try {
        kind.open(0, {});
      } catch (const InputError& error) {
        reason = error.what();
      }
    }
    if (!reason.empty()) reasons += cat(reasons.empty() ? "" : "; ", reason);
  }
  return reasons;
}

}  // namespace gptq
