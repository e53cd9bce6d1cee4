// Opening a GPU, its transfers and clock, and the ops that are one kernel each.
#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cassert>

#include <nvtx3/nvToolsExt.h>

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

DeviceClock::~DeviceClock() {
  for (const Mark& mark : marks_) cudaEventDestroy(mark.event);
  for (cudaEvent_t event : free_) cudaEventDestroy(event);
}

void DeviceClock::mark(const char* stage, const char* op) {
  constexpr size_t kMany = 4096;
  if (!marks_.empty() && marks_.back().stage == stage && marks_.back().op == op) return;
  if (marks_.size() >= kMany) collect();
  cudaEvent_t event = nullptr;
  if (!free_.empty()) {
    event = free_.back();
    free_.pop_back();
  } else {
    check(cudaEventCreate(&event), device_, "making an event");
  }
  check(cudaEventRecord(event, stream_), device_, "queueing an event");
  marks_.push_back({stage, op, event});
}

void DeviceClock::collect() {
  size_t done = 0;
  for (; done + 1 < marks_.size() && cudaEventQuery(marks_[done + 1].event) == cudaSuccess; ++done) {
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, marks_[done].event, marks_[done + 1].event);
    seconds_[{marks_[done].stage, marks_[done].op}] += milliseconds / 1e3;
    free_.push_back(marks_[done].event);
  }
  cudaGetLastError();  // "not ready" is no failure
  marks_.erase(marks_.begin(), marks_.begin() + static_cast<int64_t>(done));
}

CudaBackend::CudaBackend(int index, const BackendOptions& options)
    : index_(index),
      name_(device_name(index)),
      stream_(make_stream(index, name_)),
      memory_(index, name_, stream_.get()),
      limited_(memory_, name_, options.memory_bytes),
      staging_(options.memory != nullptr ? *options.memory : host_memory(), index, name_, stream_.get()),
      clock_(name_, stream_.get()) {
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

void CudaBackend::begin(const char* op) {
  check(cudaSetDevice(index_), name_, op);
  clock_.mark(stage_, op);
}

void CudaBackend::check_launch(const char* op) const { check(cudaGetLastError(), name_, op); }

void CudaBackend::wait() {
  begin("idle");
  check(cudaStreamSynchronize(stream_.get()), name_, "waiting for it");
  clock_.collect();
}

void CudaBackend::trim() noexcept {
  try {
    wait();
  } catch (const DeviceError&) {  // whoever asks for something next will hear of it
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
    return check_launch("upload");
  }
  check(cudaMemcpyAsync(to.data, from, static_cast<size_t>(to.size()) * size_of(to.dtype), cudaMemcpyHostToDevice,
                        stream_.get()),
        name_, "copying to it");
  // Of pageable memory CUDA has its own copy by now, and staging_ knows what is being copied. Memory that another
  // device stages is nobody's to watch.
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
    check_launch("download");
    return copy_out(to, dense);
  }
  check(cudaMemcpyAsync(to, from.data, static_cast<size_t>(from.size()) * size_of(from.dtype), cudaMemcpyDeviceToHost,
                        stream_.get()),
        name_, "copying from it");
  begin("idle");
  check(cudaStreamSynchronize(stream_.get()), name_, "copying from it");
}

template <typename T>
Matrix CudaBackend::on_device(std::span<const T> values) {
  const auto words = static_cast<int64_t>(values.size_bytes() / sizeof(int32_t));
  Matrix matrix(*this, DType::i32, 1, words);
  if (words > 0) {
    check(
        cudaMemcpyAsync(matrix.view().data, values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_.get()),
        name_, "copying to it");
  }
  return matrix;
}

void CudaBackend::gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) {
  begin("gather_rows");
  const Matrix device_ids = on_device(ids);
  cuda::gather_rows(table, device_ids.row<int32_t>(0), y, stream_.get());
  check_launch("gather_rows");
}

void CudaBackend::gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) {
  begin("gather_columns");
  const Matrix device_ids = on_device(ids);
  cuda::gather_columns(x, device_ids.row<int32_t>(0), y, stream_.get());
  check_launch("gather_columns");
}

void CudaBackend::convert(ConstMatrixView x, MatrixView y) {
  begin("convert");
  cuda::convert(x, y, stream_.get());
  check_launch("convert");
}

void CudaBackend::clear(MatrixView y) {
  if (y.empty()) return;
  begin("clear");
  const size_t element = size_of(y.dtype);
  check(cudaMemset2DAsync(y.data, static_cast<size_t>(y.stride) * element, 0, static_cast<size_t>(y.cols) * element,
                          static_cast<size_t>(y.rows), stream_.get()),
        name_, "clear");
}

void CudaBackend::add(ConstMatrixView x, float factor, MatrixView y) {
  begin("add");
  cuda::add(x, factor, y, stream_.get());
  check_launch("add");
}

void CudaBackend::rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) {
  begin("rms_norm");
  cuda::rms_norm(x, weight, eps, y, stream_.get());
  check_launch("rms_norm");
}

void CudaBackend::layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) {
  begin("layer_norm");
  cuda::layer_norm(x, weight, bias, eps, y, stream_.get());
  check_launch("layer_norm");
}

void CudaBackend::rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order,
                       int64_t head_dim, MatrixView x) {
  begin("rope");
  const Matrix device_offsets = on_device(offsets);
  cuda::rope(cos, sin, static_cast<const int64_t*>(device_offsets.view().data),
             static_cast<int64_t>(offsets.size()) - 1, order, head_dim, x, stream_.get());
  check_launch("rope");
}

void CudaBackend::attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                            const AttentionShape& shape, MatrixView y) {
  constexpr int64_t kMostHeadDim = 512;
  if (shape.head_dim > kMostHeadDim)
    throw UnsupportedError(cat(name_, ": heads of ", shape.head_dim, " elements; attention here does up to ",
                               kMostHeadDim, ", the device cpu any"));
  if (y.empty()) return;
  begin("attention");
  if (k.dtype != q.dtype || v.dtype != q.dtype || y.dtype != q.dtype) {  // no model mixes them: in f32 then
    const Matrix wide_q = aligned_copy(q, DType::f32), wide_k = aligned_copy(k, DType::f32),
                 wide_v = aligned_copy(v, DType::f32);
    Matrix wide_y(*this, DType::f32, y.rows, y.cols);
    attention(wide_q.view().col_range(0, q.cols), wide_k.view().col_range(0, k.cols),
              wide_v.view().col_range(0, v.cols), offsets, shape, wide_y);
    return convert(wide_y, y);
  }
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) longest = std::max(longest, offsets[s + 1] - offsets[s]);
  const Matrix device_offsets = on_device(offsets);
  cuda::attention(q, k, v, static_cast<const int64_t*>(device_offsets.view().data),
                  static_cast<int64_t>(offsets.size()) - 1, longest, shape, y, stream_.get());
  check_launch("attention");
}

void CudaBackend::gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) {
  begin("gate");
  cuda::gate(gate, up, activation, y, stream_.get());
  check_launch("gate");
}

void CudaBackend::cap(Cap kind, float bound, MatrixView x) {
  begin("cap");
  cuda::cap(kind, bound, x, stream_.get());
  check_launch("cap");
}

void CudaBackend::add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights,
                           MatrixView y) {
  begin("add_rows");
  const Matrix device_ids = on_device(ids), device_weights = on_device(weights);
  cuda::add_rows(x, device_ids.row<int32_t>(0), static_cast<const float*>(device_weights.view().data), y,
                 stream_.get());
  check_launch("add_rows");
}

void CudaBackend::permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) {
  begin("permute_symmetric");
  const Matrix device_order = on_device(order);
  cuda::permute_symmetric(h, device_order.row<int32_t>(0), damp, y, stream_.get());
  check_launch("permute_symmetric");
}

void CudaBackend::mirror(MatrixView h) {
  begin("mirror");
  cuda::mirror(h, stream_.get());
  check_launch("mirror");
}

void CudaBackend::group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) {
  begin("group_products");
  cuda::group_products(x, y, group_size, products, stream_.get());
  check_launch("group_products");
}

void CudaBackend::add_row_norms(ConstMatrixView x, MatrixView norms) {
  begin("add_row_norms");
  cuda::add_row_norms(x, norms, stream_.get());
  check_launch("add_row_norms");
}

void CudaBackend::find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                            MatrixView scales, MatrixView zeros) {
  begin("find_grid");
  cuda::find_grid(w, importance, group_size, search, scales, zeros, stream_.get());
  check_launch("find_grid");
}

void CudaBackend::quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                                   std::span<const int32_t> groups, const Grid& grid, MatrixView codes,
                                   MatrixView errors, MatrixView loss) {
  if (w.empty()) return;
  begin("quantize_columns");
  ColumnGroups columns = {};
  assert(groups.size() <= std::size(columns.of));
  std::copy(groups.begin(), groups.end(), columns.of);
  cuda::quantize_columns(w, feedback, factor, columns, grid, codes, errors, loss, stream_.get());
  check_launch("quantize_columns");
}

void CudaBackend::round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid,
                                MatrixView codes) {
  begin("round_columns");
  const Matrix device_groups = on_device(groups);
  cuda::round_columns(w, device_groups.row<int32_t>(0), grid, codes, stream_.get());
  check_launch("round_columns");
}

void CudaBackend::dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) {
  begin("dequantize");
  const Matrix device_groups = on_device(groups);
  cuda::dequantize(codes, device_groups.row<int32_t>(0), grid, w, stream_.get());
  check_launch("dequantize");
}

void CudaBackend::pack(ConstMatrixView codes, int bits, MatrixView words) {
  begin("pack");
  cuda::pack(codes, bits, words, stream_.get());
  check_launch("pack");
}

void CudaBackend::token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) {
  begin("token_losses");
  const Matrix device_targets = on_device(targets);
  cuda::token_losses(logits, device_targets.row<int32_t>(0), losses, stream_.get());
  check_launch("token_losses");
}

void CudaBackend::compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) {
  begin("compare_logits");
  cuda::compare_logits(p, q, divergence, same_top, stream_.get());
  check_launch("compare_logits");
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
      continue;  // one that cannot be used is not there
    }
    devices.push_back(
        {cuda::device_name(index), properties.name, static_cast<int64_t>(total), static_cast<int64_t>(free)});
  }
  return devices;
}

}  // namespace gptq
