#include "io/decoded_weight.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/rounding.h"
#include "io/small_floats.h"

namespace gptq {
namespace {

// Values decoded at a time.
constexpr int64_t kChunk = int64_t{1} << 20;

void store(float value, DType dtype, std::byte* to, int64_t index) {
  if (dtype == DType::bf16)
    reinterpret_cast<Bf16*>(to)[index] = Bf16(value);
  else if (dtype == DType::f16)
    reinterpret_cast<Half*>(to)[index] = Half(value);
  else
    reinterpret_cast<float*>(to)[index] = value;
}

template <typename Element>
std::vector<float> widened(const FileTensor& tensor, size_t first, size_t count) {
  std::vector<Element> stored(count);
  tensor.read(first * sizeof(Element), count * sizeof(Element), stored.data());
  std::vector<float> values(count);
  std::transform(stored.begin(), stored.end(), values.begin(), [](Element value) { return static_cast<float>(value); });
  return values;
}

}  // namespace

DecodedWeight::DecodedWeight(FileTensor stored, std::string name, std::vector<int64_t> shape, DType dtype)
    : stored_(stored) {
  const TensorSpec spec{std::move(name), std::string(safetensors_name(dtype)), std::move(shape)};
  values_ = {.name = spec.name, .dtype = spec.dtype, .shape = spec.shape, .offset = 0, .bytes = spec.bytes()};
}

DecodedRows::DecodedRows(FileTensor stored, std::string name, std::vector<int64_t> shape, DType dtype, bool transposed)
    : DecodedWeight(
          stored, std::move(name),
          [&] {
            std::vector<int64_t> turned = shape;
            if (transposed) std::swap(turned.back(), turned[turned.size() - 2]);
            return turned;
          }(),
          dtype),
      rows_(shape[shape.size() - 2]),
      cols_(shape.back()),
      transposed_(transposed) {}

size_t DecodedRows::read(size_t first, size_t count, void* to) const {
  auto* out = static_cast<std::byte*>(to);
  const auto begin = static_cast<int64_t>(first), end = static_cast<int64_t>(first + count);
  if (!transposed_) return read_rows(begin, end - begin, out);
  size_t bytes = 0;
  const auto element = static_cast<int64_t>(size_of(*parse_safetensors_dtype(values().dtype)));
  for (int64_t at = begin; at < end;) {
    const int64_t matrix = at / (rows_ * cols_), start = at - matrix * rows_ * cols_;
    const int64_t size = std::min(end - at, rows_ * cols_ - start);
    bytes += read_transposed(matrix, start, size, out + (at - begin) * element);
    at += size;
  }
  return bytes;
}

size_t DecodedRows::read_rows(int64_t first, int64_t count, std::byte* to) const {
  const DType dtype = *parse_safetensors_dtype(values().dtype);
  const int64_t most = std::max<int64_t>(1, kChunk / cols_), end = first + count;
  std::vector<float> chunk;
  size_t bytes = 0;
  for (int64_t at = first; at < end;) {
    const int64_t row = at / cols_, rows = std::min(most, pieces_of(end, cols_) - row);
    chunk.resize(static_cast<size_t>(rows * cols_));
    bytes += decode({row, rows, 0, cols_}, chunk.data());
    const int64_t stop = std::min(end, (row + rows) * cols_);
    for (; at < stop; ++at) store(chunk[static_cast<size_t>(at - row * cols_)], dtype, to, at - first);
  }
  return bytes;
}

// Values [first, first + count) of a matrix [cols, rows].
size_t DecodedRows::read_transposed(int64_t matrix, int64_t first, int64_t count, std::byte* to) const {
  const DType dtype = *parse_safetensors_dtype(values().dtype);
  const int64_t end = first + count, unit = column_unit();
  const int64_t col = first / rows_ / unit * unit, last = std::min(cols_, rounded_up(pieces_of(end, rows_), unit));
  const int64_t cols = last - col, most = std::max<int64_t>(1, kChunk / cols);
  std::vector<float> chunk;
  size_t bytes = 0;
  for (int64_t row = 0; row < rows_; row += most) {
    const int64_t rows = std::min(most, rows_ - row);
    chunk.resize(static_cast<size_t>(rows * cols));
    bytes += decode({matrix * rows_ + row, rows, col, cols}, chunk.data());
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t start = (col + c) * rows_ + row;  // of this column's rows among the values
      for (int64_t r = std::max<int64_t>(0, first - start); r < std::min(rows, end - start); ++r)
        store(chunk[static_cast<size_t>(r * cols + c)], dtype, to, start + r - first);
    }
  }
  return bytes;
}

size_t float_bytes(const FileTensor& tensor) {
  const std::optional<DType> dtype = parse_safetensors_dtype(tensor.tensor->dtype);
  return dtype ? size_of(*dtype) : 1;
}

std::vector<float> read_floats(const FileTensor& tensor, size_t first, size_t count) {
  const std::string& dtype = tensor.tensor->dtype;
  if (dtype == "F32") return widened<float>(tensor, first, count);
  if (dtype == "F16") return widened<Half>(tensor, first, count);
  if (dtype == "BF16") return widened<Bf16>(tensor, first, count);
  std::vector<uint8_t> stored(count);
  tensor.read(first, count, stored.data());
  std::vector<float> values(count);
  std::transform(stored.begin(), stored.end(), values.begin(), dtype == "F8_E4M3" ? e4m3_value : e8m0_value);
  return values;
}

}  // namespace gptq
