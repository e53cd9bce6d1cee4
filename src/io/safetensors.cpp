#include "io/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <unordered_set>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "io/digest.h"

namespace gptq {
namespace {

// Sorted keys for fast lookup: headers have up to hundreds of thousands of names.
using HeaderJson = nlohmann::json;

// The format's own limit on a header (huggingface/safetensors, MAX_HEADER_SIZE).
constexpr uint64_t kMaxHeader = 100'000'000;
// Where tensor data starts in files written here.
constexpr size_t kDataAlignment = 64;
// The start of the pointer file that a clone without git-lfs has instead of a large file.
constexpr std::string_view kLfsPointer = "version https://git-lfs";

struct StoredType {
  std::string_view name;
  size_t bits;
};
constexpr StoredType kStoredTypes[] = {
    {"F64", 64},        {"I64", 64},    {"U64", 64},    {"C64", 64},    {"F32", 32},    {"I32", 32},
    {"U32", 32},        {"F16", 16},    {"BF16", 16},   {"I16", 16},    {"U16", 16},    {"I8", 8},
    {"U8", 8},          {"BOOL", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};

// Bits of an element; 0 for a dtype that the format does not have.
size_t element_bits(std::string_view dtype) {
  for (const StoredType& type : kStoredTypes) {
    if (type.name == dtype) return type.bits;
  }
  return 0;
}

// Alignment of an element in bytes; elements narrower than a byte are packed.
size_t alignment_of(size_t bits) { return std::max<size_t>(bits / 8, 1); }

// Bytes of a tensor, unless they overflow size_t or end inside a byte.
std::optional<size_t> byte_count(size_t bits, const std::vector<int64_t>& shape) {
  size_t total = bits;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(total, static_cast<size_t>(size), &total)) return std::nullopt;
  }
  if (total % 8 != 0) return std::nullopt;
  return total / 8;
}

// Whether a shape fits any file; sizes beside a 0 count too, so that no product of some of them overflows.
bool is_possible(size_t bits, std::vector<int64_t> shape) {
  constexpr size_t kMostBytes = size_t{1} << 54;
  std::replace(shape.begin(), shape.end(), int64_t{0}, int64_t{1});
  const std::optional<size_t> bytes = byte_count(std::max<size_t>(bits, 8), shape);
  return bytes && *bytes <= kMostBytes;
}

// Checks a header before it is parsed for what the JSON library accepts: duplicate keys, and deep nesting. Level 1 is
// the header, 2 a tensor, 3 its shape. (The library's parser callback would take quadratic time.)
class HeaderCheck : public nlohmann::json_sax<HeaderJson> {
 public:
  bool start_object(size_t /*size*/) override {
    keys_.emplace_back();
    return descend();
  }
  bool end_object() override {
    keys_.pop_back();
    --level_;
    return true;
  }
  bool start_array(size_t /*size*/) override { return descend(); }
  bool end_array() override {
    --level_;
    return true;
  }
  bool key(std::string& name) override {
    if (!keys_.back().insert(name).second) throw InputError(cat("its header has the name '", name, "' twice"));
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(int64_t /*value*/) override { return true; }
  bool number_unsigned(uint64_t /*value*/) override { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return true; }
  bool string(std::string& /*value*/) override { return true; }
  bool binary(HeaderJson::binary_t& /*value*/) override { return true; }
  // Reported when the header is parsed.
  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return false;
  }

 private:
  bool descend() {
    if (++level_ > 3) throw InputError("its header is nested deeper than a safetensors header is");
    return true;
  }

  int level_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;  // of each open object
};

HeaderJson parse_header(std::string_view text) {
  if (text.empty() || text[0] != '{') throw InputError("its header is not a JSON object: it is not a safetensors file");
  HeaderCheck check;
  HeaderJson::sax_parse(text, &check);
  return HeaderJson::parse(text);
}

// `start`: offset of the data in the file.
StoredTensor parse_tensor(const std::string& name, const HeaderJson& entry, size_t start, size_t data_size) {
  const auto fail = [&](const std::string& what) -> InputError {
    return InputError(cat("tensor '", name, "' ", what), {.option = {}, .file = {}, .tensor = name});
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    throw fail("lacks a dtype, a shape or two data_offsets");
  }
  StoredTensor tensor{.name = name, .dtype = entry["dtype"].get<std::string>()};
  const size_t bits = element_bits(tensor.dtype);
  if (bits == 0) throw fail(cat("has the dtype '", tensor.dtype, "', which the format does not know"));
  for (const HeaderJson& size : entry["shape"]) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX)
      throw fail("has a shape that is not a list of sizes");
    tensor.shape.push_back(size.get<int64_t>());
  }
  for (const HeaderJson& offset : entry["data_offsets"]) {
    if (!offset.is_number_unsigned()) throw fail("has data_offsets that are not offsets");
  }
  const auto begin = entry["data_offsets"][0].get<uint64_t>(), end = entry["data_offsets"][1].get<uint64_t>();
  if (begin > end || end > data_size) {
    throw fail(cat("lies at bytes ", begin, " to ", end, " of ", data_size,
                   " bytes of data: the file is truncated or its header is broken"));
  }
  if (!is_possible(bits, tensor.shape))
    throw fail(cat("is ", tensor.dtype, " ", shape_string(tensor.shape), ", which is larger than any file"));
  const std::optional<size_t> bytes = byte_count(bits, tensor.shape);
  if (!bytes || *bytes != end - begin) {
    throw fail(cat("is ", tensor.dtype, " ", shape_string(tensor.shape), " but has ", end - begin, " bytes"));
  }
  tensor.bytes = *bytes;
  tensor.offset = start + begin;
  if (tensor.offset % alignment_of(bits) != 0)
    throw fail("does not start at a multiple of its element size: save the file again with the safetensors library");
  return tensor;
}

// Offsets of a file's tensors, and its header with the length in front, padded with spaces so that the data is aligned.
struct Layout {
  std::vector<size_t> offsets;  // of tensors[i] in the file
  std::string header;
  size_t size = 0;
};

Layout lay_out(const std::vector<TensorSpec>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return alignment_of(element_bits(tensors[a].dtype)) > alignment_of(element_bits(tensors[b].dtype));
  });
  Layout layout{.offsets = std::vector<size_t>(tensors.size())};
  HeaderJson json = {{"__metadata__", {{"format", "pt"}}}};
  size_t data_size = 0;
  for (const size_t i : order) {
    const TensorSpec& tensor = tensors[i];
    const size_t begin = data_size;
    if (__builtin_add_overflow(begin, tensor.bytes(), &data_size) || data_size > INT64_MAX - 2 * kMaxHeader)
      throw InputError(cat("tensor '", tensor.name, "' makes the file larger than any file can be"),
                       {.option = {}, .file = {}, .tensor = tensor.name});
    if (json.contains(tensor.name)) throw Error(cat("tensor '", tensor.name, "' is to be written twice"));
    layout.offsets[i] = begin;
    json[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data_size}}};
  }
  std::string text = json.dump();
  text.resize((8 + text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment - 8, ' ');
  if (text.size() > kMaxHeader) throw InputError("the names of the tensors do not fit a safetensors header");
  const uint64_t length = text.size();
  layout.header.assign(reinterpret_cast<const char*>(&length), sizeof length);
  layout.header += text;
  for (size_t& offset : layout.offsets) offset += layout.header.size();
  layout.size = layout.header.size() + data_size;
  return layout;
}

// Sets the file's final size, and reserves the disk space where the file system can.
void reserve(int descriptor, const std::filesystem::path& path, size_t size) {
  int error = 0;
  do {
    error = fallocate(descriptor, 0, 0, static_cast<off_t>(size)) == 0 ? 0 : errno;
  } while (error == EINTR);
  if (error == EOPNOTSUPP || error == ENOSYS) error = ftruncate(descriptor, static_cast<off_t>(size)) == 0 ? 0 : errno;
  if (error != 0) throw write_failure(path, error, size);
}

}  // namespace

std::optional<DType> parse_safetensors_dtype(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::u8}) {
    if (safetensors_name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

std::string_view safetensors_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::i32:
      return "I32";
    case DType::u8:
      return "U8";
  }
  return "?";
}

std::string shape_string(const std::vector<int64_t>& shape) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(shape.size(), kShown); ++i) text += cat(i == 0 ? "" : ", ", shape[i]);
  if (shape.size() > kShown) text += cat(", and ", shape.size() - kShown, " more");
  return "[" + text + "]";
}

ConstMatrixView StoredTensor::matrix() const {
  const std::optional<DType> known = parse_safetensors_dtype(dtype);
  if (!known) throw UnsupportedError(cat("tensor '", name, "' is stored as ", dtype, ", which is not computed with"));
  const bool is_convolution = shape.size() == 3 && shape[1] == 1;
  if (shape.empty() || (shape.size() > 2 && !is_convolution))
    throw InputError(
        cat("tensor '", name, "' has shape ", shape_string(shape), ", where a matrix or a vector is needed"),
        {.option = {}, .file = {}, .tensor = name});
  return {nullptr, *known, shape.size() > 1 ? shape[0] : 1, shape.back()};
}

size_t TensorSpec::bytes() const {
  const size_t bits = element_bits(dtype);
  if (bits == 0)
    throw InputError(cat("tensor '", name, "' has the dtype '", dtype, "', which no safetensors file has"),
                     {.option = {}, .file = {}, .tensor = name});
  const std::optional<size_t> count = byte_count(bits, shape);
  if (!count)
    throw InputError(cat("tensor '", name, "' cannot be stored as ", dtype, " ", shape_string(shape)),
                     {.option = {}, .file = {}, .tensor = name});
  return *count;
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path) : path_(std::move(path)) {
  file_ = open_regular(path_);
  const size_t size = file_size(file_, path_);
  if (size < 8) {
    throw file_error(path_, "has ", size, " bytes, too few for a safetensors file: the download is not complete");
  }
  std::string start(std::min<size_t>(size, kLfsPointer.size()), ' ');
  read_all(*file_, path_, start.data(), start.size(), 0);
  if (start == kLfsPointer) throw file_error(path_, "holds a git-lfs pointer, not the weights: run 'git lfs pull'");
  uint64_t header = 0;
  read_all(*file_, path_, &header, sizeof header, 0);
  if (header > kMaxHeader) {
    throw file_error(path_, "says that its header has ", header,
                     " bytes, more than the format allows: it is broken or not a safetensors file");
  }
  if (header > size - 8) {
    throw file_error(path_, "says that its header has ", header, " bytes, but the whole file has ", size,
                     ": the download is not complete");
  }
  std::string text(header, ' ');
  read_all(*file_, path_, text.data(), text.size(), 8);
  try {
    parse(text, size - 8 - header);
  } catch (const HeaderJson::exception&) {
    throw file_error(path_, "its header is not valid JSON: the file is broken or not a safetensors file");
  } catch (const InputError& error) {
    throw tensor_error(path_, error.subject().tensor, error.what());
  }
}

void SafetensorsFile::parse(std::string_view header, size_t data_size) {
  const HeaderJson json = parse_header(header);
  const size_t start = 8 + header.size();
  for (const auto& [name, entry] : json.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(parse_tensor(name, entry, start, data_size));
      continue;
    }
    if (!entry.is_object()) throw InputError("its __metadata__ is not a JSON object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) throw InputError(cat("its __metadata__ '", key, "' is not a string"));
      metadata_[key] = value.get<std::string>();
    }
  }
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  size_t expected = start;
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.offset < expected)
      throw InputError(cat("tensor '", tensor.name, "' overlaps the one before it"),
                       {.option = {}, .file = {}, .tensor = tensor.name});
    if (tensor.offset > expected)
      throw InputError(cat("there is a gap of ", tensor.offset - expected, " bytes before tensor '", tensor.name, "'"));
    expected += tensor.bytes;
  }
  if (expected != start + data_size)
    throw InputError(cat("has ", start + data_size - expected, " bytes after its last tensor"));
}

void SafetensorsFile::read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const {
  if (first > tensor.bytes || bytes > tensor.bytes - first)
    throw Error(cat(path_.string(), ": tensor '", tensor.name, "' is read beyond its end"));
  read_all(*file_, path_, to, bytes, tensor.offset + first);
}

Matrix SafetensorsFile::load(const StoredTensor& tensor, Memory& memory) const {
  const ConstMatrixView like = tensor.matrix();
  Matrix matrix(memory, like.dtype, like.rows, like.cols);
  read(tensor, 0, tensor.bytes, matrix.view().data);
  return matrix;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, std::vector<TensorSpec> tensors)
    : path_(std::move(path)) {
  const Layout layout = lay_out(tensors);
  size_ = layout.size;
  for (size_t i = 0; i < tensors.size(); ++i) slots_[tensors[i].name] = {layout.offsets[i], tensors[i].bytes()};
  file_ = Descriptor(open(path_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!file_) throw write_failure(path_, errno, size_);
  std::string header(layout.header.size(), ' ');
  if (gptq::file_size(file_, path_) == size_) read_all(*file_, path_, header.data(), header.size(), 0);
  if (header != layout.header && ftruncate(*file_, 0) != 0) throw write_failure(path_, errno, size_);
  reserve(*file_, path_, size_);
  write_all(*file_, path_, layout.header.data(), layout.header.size(), 0);
}

bool SafetensorsWriter::holds(std::string_view name, uint64_t digest) const {
  const auto found = slots_.find(name);
  return found != slots_.end() && digest_of(*file_, path_, found->second.bytes, found->second.offset) == digest;
}

void SafetensorsWriter::keep(std::string_view name) {
  Slot& slot = slots_.find(name)->second;
  slot.written = slot.bytes;
}

void SafetensorsWriter::flush() { sync_file(*file_, path_); }

void SafetensorsWriter::write(std::string_view name, const void* data, size_t bytes) {
  if (const auto found = slots_.find(name); found != slots_.end() && found->second.bytes != bytes)
    throw Error(cat(path_.string(), ": tensor '", name, "' has ", found->second.bytes, " bytes, not ", bytes));
  write_part(name, 0, data, bytes);
}

void SafetensorsWriter::write_part(std::string_view name, size_t first, const void* data, size_t bytes) {
  const auto found = slots_.find(name);
  if (found == slots_.end()) throw Error(cat(path_.string(), ": tensor '", name, "' is not in its layout"));
  Slot& slot = found->second;
  if (slot.written != first || !file_)
    throw Error(cat(path_.string(), ": tensor '", name, "' is written twice, with a gap, or too late"));
  if (bytes > slot.bytes - first)
    throw Error(cat(path_.string(), ": tensor '", name, "' has only ", slot.bytes, " bytes"));
  write_all(*file_, path_, data, bytes, slot.offset + first);
#ifdef __linux__
  // Starts writing to the disk now, so that finish() waits less. Only a hint: finish() reports errors.
  sync_file_range(*file_, static_cast<off64_t>(slot.offset + first), static_cast<off64_t>(bytes),
                  SYNC_FILE_RANGE_WRITE);
#endif
  slot.written += bytes;
}

void SafetensorsWriter::finish() {
  for (const auto& [name, slot] : slots_) {
    if (slot.written != slot.bytes) throw Error(cat(path_.string(), ": tensor '", name, "' was never written"));
  }
  flush();
  if (close(file_.release()) != 0) throw write_failure(path_, errno, size_);
}

size_t SafetensorsWriter::file_size(const std::vector<TensorSpec>& tensors) { return lay_out(tensors).size; }

}  // namespace gptq
