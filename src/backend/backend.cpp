// The host fallback of each op, and the table of backends.
#include "backend/backend.h"

#include <charconv>
#include <system_error>

#include "base/error.h"

namespace gptq {

std::unique_ptr<Backend> open_cpu(int index, const BackendOptions& options);
std::unique_ptr<Backend> open_simulated(int index, const BackendOptions& options);
std::vector<DeviceInfo> list_cpu();
#if GPTQ_CUDA
std::unique_ptr<Backend> open_cuda(int index, const BackendOptions& options);
std::vector<DeviceInfo> list_cuda();
#endif

namespace {

// A kind of device: "cpu", or "sim" of which there are "sim:0", "sim:1", ...
struct BackendEntry {
  std::string_view kind;
  std::unique_ptr<Backend> (*open)(int index, const BackendOptions&);
  std::vector<DeviceInfo> (*list)();  // those of this machine
  bool numbered;
};

std::vector<DeviceInfo> list_none() { return {}; }

// Accelerators first.
constexpr BackendEntry kBackends[] = {
#if GPTQ_CUDA
    {"cuda", &open_cuda, &list_cuda, true},
#endif
    {"cpu", &open_cpu, &list_cpu, false},
    {"sim", &open_simulated, &list_none, true},
};

// A device matrix brought to the host for the duration of one fallback.
class HostCopy {
 public:
  HostCopy(Backend& backend, ConstMatrixView device) : matrix_(host_memory(), device.dtype, device.rows, device.cols) {
    if (!device.empty()) backend.download(matrix_.view().data, device);
  }
  operator ConstMatrixView() const { return matrix_; }  // NOLINT
  operator MatrixView() { return matrix_; }             // NOLINT
  void send(Backend& backend, MatrixView device) const {
    if (!device.empty()) backend.upload(device, matrix_.view().data);
  }

 private:
  Matrix matrix_;
};

}  // namespace

std::unique_ptr<Backend> open_backend(std::string_view name, const BackendOptions& options) {
  std::string known;
  const size_t colon = name.find(':');
  const std::string_view kind = name.substr(0, colon);
  const std::string_view digits = colon == std::string_view::npos ? "" : name.substr(colon + 1);
  int index = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  const bool is_number = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size() && index >= 0;
  for (const BackendEntry& entry : kBackends) {
    if (kind == entry.kind && (entry.numbered ? is_number : colon == std::string_view::npos))
      return entry.open(index, options);
    known += cat(known.empty() ? "" : ", ", entry.kind, entry.numbered ? ":N" : "");
  }
  throw InputError(cat("unknown device '", name, "': this build has ", known));
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices;
  for (const BackendEntry& entry : kBackends) {
    const std::vector<DeviceInfo> found = entry.list();
    devices.insert(devices.end(), found.begin(), found.end());
  }
  return devices;
}

void Backend::upload(MatrixView to, const void* from) {
  traffic_.uploaded += to.size() * static_cast<int64_t>(size_of(to.dtype));
  copy_in(to, from);
}

void Backend::download(void* to, ConstMatrixView from) {
  traffic_.downloaded += from.size() * static_cast<int64_t>(size_of(from.dtype));
  copy_out(to, from);
}

Matrix to_device(Backend& backend, DType dtype, int64_t rows, int64_t cols, const void* host) {
  Matrix matrix(backend, dtype, rows, cols);
  if (!matrix.empty()) backend.upload(matrix, host);
  return matrix;
}

void Backend::gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) {
  ++fallbacks_["gather_rows"];
  HostCopy host_y(*this, y);
  reference().gather_rows(HostCopy(*this, table), ids, host_y);
  host_y.send(*this, y);
}

void Backend::gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) {
  ++fallbacks_["gather_columns"];
  HostCopy host_y(*this, y);
  reference().gather_columns(HostCopy(*this, x), ids, host_y);
  host_y.send(*this, y);
}

void Backend::convert(ConstMatrixView x, MatrixView y) {
  ++fallbacks_["convert"];
  HostCopy host_y(*this, y);
  reference().convert(HostCopy(*this, x), host_y);
  host_y.send(*this, y);
}

void Backend::clear(MatrixView y) {
  ++fallbacks_["clear"];
  HostCopy host_y(*this, y);
  reference().clear(host_y);
  host_y.send(*this, y);
}

void Backend::add(ConstMatrixView x, float factor, MatrixView y) {
  ++fallbacks_["add"];
  HostCopy host_y(*this, y);
  reference().add(HostCopy(*this, x), factor, host_y);
  host_y.send(*this, y);
}

void Backend::rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) {
  ++fallbacks_["rms_norm"];
  HostCopy host_y(*this, y);
  reference().rms_norm(HostCopy(*this, x), HostCopy(*this, weight), eps, host_y);
  host_y.send(*this, y);
}

void Backend::layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) {
  ++fallbacks_["layer_norm"];
  HostCopy host_y(*this, y);
  reference().layer_norm(HostCopy(*this, x), HostCopy(*this, weight), HostCopy(*this, bias), eps, host_y);
  host_y.send(*this, y);
}

void Backend::linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) {
  ++fallbacks_["linear"];
  HostCopy host_y(*this, y);
  reference().linear(HostCopy(*this, x), HostCopy(*this, w), HostCopy(*this, bias), host_y);
  host_y.send(*this, y);
}

void Backend::gated_linear(ConstMatrixView x, const GatedWeights& weights, MatrixView y) {
  const auto side = [&](ConstMatrixView w, ConstMatrixView bias) {
    if (w.empty()) return Matrix();
    Matrix product(*this, y.dtype, y.rows, y.cols);
    linear(x, w, bias, product);
    return product;
  };
  const Matrix of_gate = side(weights.gate, weights.gate_bias), of_up = side(weights.up, weights.up_bias);
  gate(of_gate, of_up, weights.activation, y);
}

void Backend::add_linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, float factor, MatrixView y) {
  Matrix product(*this, x.dtype, y.rows, y.cols);
  linear(x, w, bias, product);
  add(product, factor, y);
}

void Backend::rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order,
                   int64_t head_dim, MatrixView x) {
  ++fallbacks_["rope"];
  HostCopy host_x(*this, x);
  reference().rope(HostCopy(*this, cos), HostCopy(*this, sin), offsets, order, head_dim, host_x);
  host_x.send(*this, x);
}

void Backend::attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                        const AttentionShape& shape, MatrixView y) {
  ++fallbacks_["attention"];
  HostCopy host_y(*this, y);
  const HostCopy slopes(*this, shape.slopes), sinks(*this, shape.sinks);
  AttentionShape host_shape = shape;
  host_shape.slopes = slopes;
  host_shape.sinks = sinks;
  reference().attention(HostCopy(*this, q), HostCopy(*this, k), HostCopy(*this, v), offsets, host_shape, host_y);
  host_y.send(*this, y);
}

void Backend::gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) {
  ++fallbacks_["gate"];
  HostCopy host_y(*this, y);
  reference().gate(HostCopy(*this, gate), HostCopy(*this, up), activation, host_y);
  host_y.send(*this, y);
}

void Backend::cap(Cap kind, float bound, MatrixView x) {
  ++fallbacks_["cap"];
  HostCopy host_x(*this, x);
  reference().cap(kind, bound, host_x);
  host_x.send(*this, x);
}

void Backend::add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights, MatrixView y) {
  ++fallbacks_["add_rows"];
  HostCopy host_y(*this, y);
  reference().add_rows(HostCopy(*this, x), ids, weights, host_y);
  host_y.send(*this, y);
}

void Backend::add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) {
  ++fallbacks_["add_gram"];
  HostCopy host_h(*this, h), host_dropped(*this, dropped);
  reference().add_gram(HostCopy(*this, x), host_h, host_dropped);
  host_h.send(*this, h);
  host_dropped.send(*this, dropped);
}

void Backend::add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) {
  ++fallbacks_["add_cross_gram"];
  HostCopy host_c(*this, c);
  reference().add_cross_gram(HostCopy(*this, x), HostCopy(*this, original), host_c);
  host_c.send(*this, c);
}

void Backend::mirror(MatrixView h) {
  ++fallbacks_["mirror"];
  HostCopy host_h(*this, h);
  reference().mirror(host_h);
  host_h.send(*this, h);
}

void Backend::permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) {
  ++fallbacks_["permute_symmetric"];
  HostCopy host_y(*this, y);
  reference().permute_symmetric(HostCopy(*this, h), order, damp, host_y);
  host_y.send(*this, y);
}

void Backend::solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) {
  ++fallbacks_["solve_triangle"];
  HostCopy host_x(*this, x);
  reference().solve_triangle(HostCopy(*this, factor), transposed, host_x);
  host_x.send(*this, x);
}

void Backend::solve_systems(ConstMatrixView a, float ridge, MatrixView x) {
  ++fallbacks_["solve_systems"];
  HostCopy host_x(*this, x);
  reference().solve_systems(HostCopy(*this, a), ridge, host_x);
  host_x.send(*this, x);
}

void Backend::group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) {
  ++fallbacks_["group_products"];
  HostCopy host_products(*this, products);
  reference().group_products(HostCopy(*this, x), HostCopy(*this, y), group_size, host_products);
  host_products.send(*this, products);
}

void Backend::add_row_norms(ConstMatrixView x, MatrixView norms) {
  ++fallbacks_["add_row_norms"];
  HostCopy host_norms(*this, norms);
  reference().add_row_norms(HostCopy(*this, x), host_norms);
  host_norms.send(*this, norms);
}

void Backend::add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) {
  ++fallbacks_["add_product_norms"];
  HostCopy host_norms(*this, norms);
  reference().add_product_norms(HostCopy(*this, w), HostCopy(*this, factor), host_norms);
  host_norms.send(*this, norms);
}

bool Backend::factor(MatrixView h) {
  ++fallbacks_["factor"];
  HostCopy host_h(*this, h);
  const bool positive = reference().factor(host_h);
  host_h.send(*this, h);
  return positive;
}

void Backend::find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                        MatrixView scales, MatrixView zeros) {
  ++fallbacks_["find_grid"];
  HostCopy host_scales(*this, scales), host_zeros(*this, zeros);
  reference().find_grid(HostCopy(*this, w), HostCopy(*this, importance), group_size, search, host_scales, host_zeros);
  host_scales.send(*this, scales);
  host_zeros.send(*this, zeros);
}

void Backend::quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                               std::span<const int32_t> groups, const Grid& grid, MatrixView codes, MatrixView errors,
                               MatrixView loss) {
  ++fallbacks_["quantize_columns"];
  const HostCopy scales(*this, grid.scales), zeros(*this, grid.zeros);
  HostCopy host_codes(*this, codes), host_errors(*this, errors), host_loss(*this, loss);
  reference().quantize_columns(HostCopy(*this, w), HostCopy(*this, feedback), HostCopy(*this, factor), groups,
                               {scales, zeros, grid.bits}, host_codes, host_errors, host_loss);
  host_codes.send(*this, codes);
  host_errors.send(*this, errors);
  host_loss.send(*this, loss);
}

void Backend::round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) {
  ++fallbacks_["round_columns"];
  const HostCopy scales(*this, grid.scales), zeros(*this, grid.zeros);
  HostCopy host_codes(*this, codes);
  reference().round_columns(HostCopy(*this, w), groups, {scales, zeros, grid.bits}, host_codes);
  host_codes.send(*this, codes);
}

void Backend::dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) {
  ++fallbacks_["dequantize"];
  const HostCopy scales(*this, grid.scales), zeros(*this, grid.zeros);
  HostCopy host_w(*this, w);
  reference().dequantize(HostCopy(*this, codes), groups, {scales, zeros, grid.bits}, host_w);
  host_w.send(*this, w);
}

void Backend::pack(ConstMatrixView codes, int bits, MatrixView words) {
  ++fallbacks_["pack"];
  HostCopy host_words(*this, words);
  reference().pack(HostCopy(*this, codes), bits, host_words);
  host_words.send(*this, words);
}

void Backend::token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) {
  ++fallbacks_["token_losses"];
  HostCopy host_losses(*this, losses);
  reference().token_losses(HostCopy(*this, logits), targets, host_losses);
  host_losses.send(*this, losses);
}

void Backend::compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) {
  ++fallbacks_["compare_logits"];
  HostCopy host_divergence(*this, divergence), host_same_top(*this, same_top);
  reference().compare_logits(HostCopy(*this, p), HostCopy(*this, q), host_divergence, host_same_top);
  host_divergence.send(*this, divergence);
  host_same_top.send(*this, same_top);
}

}  // namespace gptq
