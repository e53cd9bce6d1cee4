#include "backend/cuda/cuda_backend.h"

#include <nvtx3/nvToolsExt.h>

#include "backend/all_ops.h"
#include "backend/cuda/kernels.h"
#include "base/error.h"

namespace gptq {
namespace cuda {
namespace {

std::string device_name(int index) { return cat("cuda:", index); }

// "13.0", of CUDA's 13000
std::string version_text(int version) { return cat(version / 1000, ".", version % 1000 / 10); }

// Why there are no GPUs at all: empty where there are some.
std::string why_none(int& count) {
  count = 0;
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result == cudaSuccess && count > 0) return {};
  cudaGetLastError();
  count = 0;
  if (driver == 0) return "no NVIDIA driver is installed; install one, or use the device cpu";
  if (result == cudaErrorInsufficientDriver) {
    return cat("the NVIDIA driver is for CUDA ", version_text(driver), " and this program needs one for ",
               version_text(runtime), ": update the driver, or use the device cpu");
  }
  if (result == cudaSuccess || result == cudaErrorNoDevice)
    return "this machine shows no NVIDIA GPU (CUDA_VISIBLE_DEVICES may hide some)";
  return cat("the NVIDIA driver refuses: ", cudaGetErrorString(result));
}

cudaStream_t make_stream(int index, const std::string& name) {
  check(cudaSetDevice(index), name, "opening it");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), name, "opening it");
  return stream;
}

}  // namespace

CudaBackend::CudaBackend(int index, const BackendOptions& options)
    : index_(index),
      name_(device_name(index)),
      stream_(make_stream(index, name_)),
      memory_(index, name_, stream_.get()),
      limited_(memory_, name_, options.memory_bytes),
      staging_(options.memory != nullptr ? *options.memory : host_memory(), index, name_, stream_.get()),
      clock_(name_, stream_.get()),
      libraries_(*this, name_, stream_.get()),
      gpu_(*this, name_.c_str(), stream_.get(), libraries_) {
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, index), name_, "opening it");
  int driver = 0;
  cudaDriverGetVersion(&driver);
  description_ = cat(properties.name, ", compute capability ", properties.major, ".", properties.minor,
                     ", driver for CUDA ", version_text(driver));
  const cudaError_t usable = probe();
  if (usable == cudaErrorNoKernelImageForDevice || usable == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();
    throw InputError(cat(name_, " (", properties.name, ") has compute capability ", properties.major, ".",
                         properties.minor, ", and this program was built for ", GPTQ_CUDA_BUILT_FOR,
                         ": build it with -DGPTQ_CUDA_ARCHITECTURES=", properties.major, properties.minor,
                         ", or use the device cpu"));
  }
  check(usable, name_, "opening it");
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_.get());
}

std::string CudaBackend::arithmetic() const { return cat("cuda, ", description_, ", cuBLASLt ", cublasLtGetVersion()); }

void CudaBackend::begin(const char* op) {
  check(cudaSetDevice(index_), name_, op);
  clock_.mark(stage_, op);
}

void CudaBackend::compute(const ops::OpRef& op) {
  if (!all_ops<GpuOps>().has(op)) return fall_back(op);
  begin(op.name());
  all_ops<GpuOps>().run(gpu_, op);
  check(cudaGetLastError(), name_, op.name());
}

void CudaBackend::wait() {
  begin("idle");
  check(cudaStreamSynchronize(stream_.get()), name_, "waiting for it");
  clock_.collect();
}

void CudaBackend::trim() noexcept {
  try {
    wait();
  } catch (const DeviceError&) {  // the next call reports it
  }
  memory_.trim();
}

void CudaBackend::set_stage(const char* stage) {
  if (*stage_ != '\0') nvtxRangePop();
  stage_ = stage;
  if (*stage_ != '\0') nvtxRangePush(stage_);
}

std::vector<Backend::DeviceSeconds> CudaBackend::device_seconds() {
  wait();
  std::vector<DeviceSeconds> result;
  for (const auto& [key, seconds] : clock_.seconds()) result.push_back({key.first, key.second, seconds});
  return result;
}

void CudaBackend::copy_in(MatrixView to, const void* from) {
  if (to.empty()) return;
  begin("upload");
  if (to.stride != to.cols && to.rows > 1) {
    Matrix dense(*this, to.dtype, to.rows, to.cols);
    copy_in(dense, from);
    copy(dense, to, stream_.get());
    return check(cudaGetLastError(), name_, "upload");
  }
  check(cudaMemcpyAsync(to.data, from, static_cast<size_t>(to.size()) * size_of(to.dtype), cudaMemcpyHostToDevice,
                        stream_.get()),
        name_, "copying to it");
  // CUDA has copied pageable memory by now, and staging_ tracks copies from its own blocks. Copies from memory that
  // another device stages are waited for.
  if (staging_.owns(from)) return;
  cudaPointerAttributes attributes = {};
  check(cudaPointerGetAttributes(&attributes, from), name_, "copying to it");
  if (attributes.type == cudaMemoryTypeHost) check(cudaStreamSynchronize(stream_.get()), name_, "copying to it");
}

void CudaBackend::copy_out(void* to, ConstMatrixView from) {
  if (from.empty()) return;
  begin("download");
  if (from.stride != from.cols && from.rows > 1) {
    Matrix dense(*this, from.dtype, from.rows, from.cols);
    copy(from, dense, stream_.get());
    check(cudaGetLastError(), name_, "download");
    return copy_out(to, dense);
  }
  check(cudaMemcpyAsync(to, from.data, static_cast<size_t>(from.size()) * size_of(from.dtype), cudaMemcpyDeviceToHost,
                        stream_.get()),
        name_, "copying from it");
  begin("idle");
  check(cudaStreamSynchronize(stream_.get()), name_, "copying from it");
}

}  // namespace cuda

std::unique_ptr<Backend> open_cuda(int index, const BackendOptions& options) {
  int count = 0;
  const std::string reason = cuda::why_none(count);
  const std::string name = cuda::device_name(index);
  if (!reason.empty()) throw InputError(cat(name, ": ", reason));
  if (index >= count) {
    throw InputError(cat(name, ": this machine shows ", count,
                         count == 1 ? " GPU, cuda:0" : cat(" GPUs, cuda:0 to cuda:", count - 1)));
  }
  return std::make_unique<cuda::CudaBackend>(index, options);
}

std::vector<DeviceInfo> list_cuda() {
  int count = 0;
  cuda::why_none(count);
  std::vector<DeviceInfo> devices;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties = {};
    size_t free = 0, total = 0;
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess || cudaSetDevice(index) != cudaSuccess ||
        cudaMemGetInfo(&free, &total) != cudaSuccess) {
      cudaGetLastError();
      continue;  // not usable, so not listed
    }
    devices.push_back(
        {cuda::device_name(index), properties.name, static_cast<int64_t>(total), static_cast<int64_t>(free)});
  }
  return devices;
}

}  // namespace gptq
