#include "model/tensor_reader.h"

#include <algorithm>
#include <cstring>

#include "model/tensor_checks.h"

namespace gptq {
namespace {

// Copies out features first + i * stride of a stored matrix [out, in], or [in, out] if `transposed`.
template <typename Element>
void take_features(ConstMatrixView stored, const LinearSpec& spec, MatrixView weight) {
  if (spec.transposed) {
    constexpr int64_t kTile = 64;
    for (int64_t first = 0; first < weight.cols; first += kTile) {
      const int64_t end = std::min(first + kTile, weight.cols);
      for (int64_t out = 0; out < weight.rows; ++out) {
        Element* to = weight.row<Element>(out);
        for (int64_t in = first; in < end; ++in) to[in] = stored.row<Element>(in)[spec.first + out * spec.stride];
      }
    }
    return;
  }
  for (int64_t out = 0; out < weight.rows; ++out)
    std::copy_n(stored.row<Element>(spec.first + out * spec.stride), weight.cols, weight.row<Element>(out));
}

Matrix transposed(ConstMatrixView x, Memory& memory) {
  Matrix single(memory, DType::f32, x.rows, x.cols), y(memory, DType::f32, x.cols, x.rows);
  reference(ops::Convert{.x = x, .y = single});
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) y.row<float>(c)[r] = single.row<float>(r)[c];
  }
  return y;
}

}  // namespace

// The tensor in its stored dtype; F64 becomes F32.
Matrix TensorReader::read(const StoredTensor& tensor) const {
  if (tensor.dtype == "F64") return read_doubles(tensor);
  const ConstMatrixView like = tensor.matrix();
  if (!reads_) return {memory_, like.dtype, like.rows, like.cols};
  Matrix values = checkpoint_.load(tensor, memory_);
  check_finite(checkpoint_, tensor, values);
  return values;
}

Matrix TensorReader::read_doubles(const StoredTensor& tensor) const {
  const int64_t count = static_cast<int64_t>(tensor.bytes / sizeof(double)), cols = tensor.shape.back();
  Matrix values(memory_, DType::f32, count / cols, cols);
  if (!reads_) return values;
  std::vector<double> doubles(static_cast<size_t>(count));
  checkpoint_.read(tensor, 0, tensor.bytes, doubles.data());
  std::transform(doubles.begin(), doubles.end(), values.row<float>(0),
                 [](double value) { return static_cast<float>(value); });
  check_finite(checkpoint_, tensor, values);
  return values;
}

// One matrix of a tensor [matrices, rows, cols], or one row of a bias [matrices, cols].
Matrix TensorReader::read_fused(const StoredTensor& tensor, int64_t index) const {
  const DType dtype = parse_safetensors_dtype(tensor.dtype).value_or(DType::f32);  // as check_tensors() has seen
  const std::vector<int64_t>& shape = tensor.shape;
  const bool is_bias = shape.size() == 2;
  Matrix values(memory_, dtype, is_bias ? 1 : shape[1], shape.back());
  if (!reads_) return values;
  checkpoint_.read(tensor, static_cast<size_t>(index) * values.bytes(), values.bytes(), values.view().data);
  check_finite(checkpoint_, tensor, values);
  return values;
}

Matrix TensorReader::read_weight(const LinearSpec& spec) const {
  const StoredTensor& tensor = checkpoint_.tensor(spec.tensor, spec.shape);
  Matrix stored = spec.matrix_index < 0 ? read(tensor) : read_fused(tensor, spec.matrix_index);
  const bool is_whole = !spec.transposed && stored.rows() == spec.out_features;
  if (is_whole) return stored;
  Matrix weight(memory_, stored.dtype(), spec.out_features, spec.in_features);
  if (reads_)
    size_of(stored.dtype()) == 2 ? take_features<uint16_t>(stored, spec, weight)
                                 : take_features<float>(stored, spec, weight);
  return weight;
}

// The linear's own bias tensor if there is one, else its part of a fused one.
Matrix TensorReader::read_bias(const LinearSpec& spec) const {
  const std::string own = spec.matrix_index < 0 ? spec.bias_tensor : spec.name + ".bias";
  if (spec.matrix_index < 0 || checkpoint_.has(own)) return read(own, {spec.out_features});
  const Matrix stored = read_fused(checkpoint_.tensor(spec.bias_tensor, spec.bias_shape), spec.matrix_index);
  Matrix bias(memory_, stored.dtype(), 1, spec.out_features);
  for (int64_t i = 0; i < spec.out_features && reads_; ++i) {
    const ConstMatrixView from = stored.view().col_range(spec.first + i * spec.stride, 1);
    std::memcpy(bias.view().col_range(i, 1).data, from.data, size_of(stored.dtype()));
  }
  return bias;
}

Affine TensorReader::read_part(const PartSpec& spec) const {
  Affine part{.weight = Matrix(memory_, DType::f32, spec.rows, spec.cols)};
  const auto add_constant = [](MatrixView values, float scale, float constant) {
    for (int64_t r = 0; r < values.rows; ++r) {
      for (int64_t c = 0; c < values.cols; ++c) values.row<float>(r)[c] = scale * (values.row<float>(r)[c] + constant);
    }
  };
  if (spec.weights.empty() && reads_) {
    reference(ops::Clear{.y = part.weight});
    add_constant(part.weight, spec.scale, 1);
  }
  int64_t row = 0;
  for (size_t i = 0; i < spec.weights.size(); ++i) {
    const Matrix stored = read(spec.weights[i], stored_shape(checkpoint_, spec, i));
    if (!reads_) continue;
    const Matrix turned = spec.transposed ? transposed(stored, memory_) : Matrix();
    const ConstMatrixView values = spec.transposed ? turned : stored;
    const int64_t count = std::min(values.rows, spec.rows - row);
    reference(ops::Convert{.x = values.row_range(0, count), .y = part.weight.view().row_range(row, count)});
    row += count;
  }
  if (!spec.weights.empty() && reads_) add_constant(part.weight, spec.scale, spec.plus_one ? 1 : 0);
  if (!spec.bias.empty()) {
    const Matrix values = read(spec.bias, {bias_size(spec)});
    part.bias = Matrix(memory_, DType::f32, 1, bias_size(spec));
    if (reads_) {
      reference(ops::Convert{.x = values, .y = part.bias});
      add_constant(part.bias, spec.scale, 0);
    }
  }
  return part;
}

}  // namespace gptq
