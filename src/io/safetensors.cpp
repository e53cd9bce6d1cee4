#include "io/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"

namespace gptq {
namespace {

using Json = nlohmann::ordered_json;

// The format's own limit on a header (huggingface/safetensors, MAX_HEADER_SIZE).
constexpr uint64_t kMaxHeader = 100'000'000;
// Where tensor data starts in files written here, so that every tensor of a mapped file is aligned.
constexpr size_t kAlignment = 64;

struct DTypeName {
  std::string_view name;
  size_t bytes;
};
constexpr DTypeName kDTypes[] = {{"F64", 8},  {"F32", 4},     {"F16", 2},     {"BF16", 2},    {"I64", 8}, {"I32", 4},
                                 {"I16", 2},  {"I8", 1},      {"U64", 8},     {"U32", 4},     {"U16", 2}, {"U8", 1},
                                 {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"C64", 8}};

size_t element_size(std::string_view dtype) {
  for (const DTypeName& entry : kDTypes) {
    if (entry.name == dtype) return entry.bytes;
  }
  return 0;
}

// Bytes of a tensor; nothing where they do not fit a size_t.
std::optional<size_t> byte_count(size_t element, const std::vector<int64_t>& shape) {
  size_t bytes = element;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes)) return std::nullopt;
  }
  return bytes;
}

// Parses a header, refusing what nlohmann would let pass: a key that comes twice.
Json parse_header(std::string_view text) {
  std::vector<std::set<std::string>> open_objects;
  const auto watch = [&](int /*depth*/, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event == Event::key && !open_objects.back().insert(value.get<std::string>()).second) {
      throw InputError(cat("the name '", value.get<std::string>(), "' comes twice"));
    }
    if (open_objects.size() > 3) throw InputError("it is nested deeper than a safetensors header is");
    return true;
  };
  return Json::parse(text, watch);
}

StoredTensor parse_tensor(const std::string& name, const Json& entry, const std::byte* data, size_t data_size) {
  const auto fail = [&](const std::string& what) -> InputError {
    return InputError(cat("tensor '", name, "' ", what));
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2) {
    throw fail("lacks a dtype, a shape or two data_offsets");
  }
  StoredTensor tensor{.name = name, .dtype = entry["dtype"].get<std::string>()};
  const size_t element = element_size(tensor.dtype);
  if (element == 0) throw fail(cat("has the dtype '", tensor.dtype, "', which the format does not know"));
  for (const Json& size : entry["shape"]) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX)
      throw fail("has a shape that is no list of sizes");
    tensor.shape.push_back(size.get<int64_t>());
  }
  for (const Json& offset : entry["data_offsets"]) {
    if (!offset.is_number_unsigned()) throw fail("has data_offsets that are no offsets");
  }
  const auto begin = entry["data_offsets"][0].get<uint64_t>(), end = entry["data_offsets"][1].get<uint64_t>();
  if (begin > end || end > data_size) {
    throw fail(cat("lies at bytes ", begin, " to ", end, " of ", data_size,
                   " bytes of data: the file is truncated or its header is broken"));
  }
  const std::optional<size_t> bytes = byte_count(element, tensor.shape);
  if (!bytes || *bytes != end - begin) {
    throw fail(cat("is ", tensor.dtype, " ", shape_string(tensor.shape), " but has ", end - begin, " bytes"));
  }
  tensor.bytes = *bytes;
  tensor.data = data + begin;
  if (reinterpret_cast<uintptr_t>(tensor.data) % element != 0) {
    throw fail(cat("starts at byte ", begin,
                   ", which is not aligned to its elements: save it again with the safetensors library"));
  }
  return tensor;
}

InputError write_failure(const std::filesystem::path& path, int error, size_t needed) {
  struct statvfs disk {};
  std::string free_space;
  if (statvfs(path.parent_path().c_str(), &disk) == 0)
    free_space = cat(", and ", uint64_t{disk.f_bavail} * disk.f_frsize, " bytes are free there");
  return InputError(
      cat(path.string(), ": cannot write it (", std::strerror(error), "): ", needed, " bytes are needed", free_space));
}

void write_all(int descriptor, const std::filesystem::path& path, const void* data, size_t bytes, size_t offset) {
  const auto* from = static_cast<const char*>(data);
  for (size_t done = 0; done < bytes;) {
    const ssize_t written = pwrite(descriptor, from + done, bytes - done, static_cast<off_t>(offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw write_failure(path, written == 0 ? EIO : errno, bytes - done);
    done += static_cast<size_t>(written);
  }
}

// Header text, padded with spaces so that the data after it is aligned.
std::string header_text(const std::vector<TensorSpec>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 8 + kAlignment - 1) / kAlignment * kAlignment - 8, ' ');
  return text;
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
  std::string text;
  for (const int64_t size : shape) text += cat(text.empty() ? "" : ", ", size);
  return "[" + text + "]";
}

ConstMatrixView StoredTensor::matrix() const {
  const std::optional<DType> known = parse_safetensors_dtype(dtype);
  if (!known) throw UnsupportedError(cat("tensor '", name, "' is stored as ", dtype, ", which is not computed with"));
  if (shape.empty() || shape.size() > 2)
    throw InputError(
        cat("tensor '", name, "' has shape ", shape_string(shape), ", where a matrix or a vector is needed"));
  return {data, *known, shape.size() == 2 ? shape[0] : 1, shape.back()};
}

size_t TensorSpec::bytes() const {
  const std::optional<size_t> count = byte_count(element_size(dtype), shape);
  if (!count) throw InputError(cat("tensor '", name, "' of shape ", shape_string(shape), " is larger than any file"));
  return *count;
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path) : path_(std::move(path)) {
  const auto fail = [&](const std::string& what) -> InputError { return InputError(cat(path_.string(), ": ", what)); };
  const int descriptor = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw fail(cat("cannot open it (", std::strerror(errno), ")"));
  struct stat status {};
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<size_t>(status.st_size) : 0;
  void* map = size_ >= 8 ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0) : nullptr;
  close(descriptor);
  if (!regular) throw fail("not a regular file");
  if (size_ < 8) throw fail(cat("has ", size_, " bytes, too few for a safetensors file: the download is not complete"));
  if (map == MAP_FAILED) throw fail(cat("cannot be mapped (", std::strerror(errno), ")"));
  map_ = static_cast<std::byte*>(map);

  try {
    uint64_t header = 0;
    std::memcpy(&header, map_, sizeof header);
    if (header > kMaxHeader)
      throw InputError(cat("says that its header has ", header,
                           " bytes, more than any safetensors file has: it is no safetensors file"));
    if (header > size_ - 8)
      throw InputError(cat("says that its header has ", header, " bytes, but the file has ", size_,
                           ": it is truncated or no safetensors file"));
    const Json json = parse_header({reinterpret_cast<const char*>(map_) + 8, header});
    if (!json.is_object()) throw InputError("its header is no JSON object");
    const std::byte* data = map_ + 8 + header;
    const size_t data_size = size_ - 8 - header;
    for (const auto& [name, entry] : json.items()) {
      if (name != "__metadata__") {
        tensors_.push_back(parse_tensor(name, entry, data, data_size));
        continue;
      }
      if (!entry.is_object()) throw InputError("its __metadata__ is no JSON object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) throw InputError(cat("its __metadata__ '", key, "' is no string"));
        metadata_[key] = value.get<std::string>();
      }
    }
    std::stable_sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
      return std::pair(a.data, a.bytes) < std::pair(b.data, b.bytes);
    });
    const std::byte* expected = data;
    for (const StoredTensor& tensor : tensors_) {
      if (tensor.data < expected) throw InputError(cat("tensor '", tensor.name, "' overlaps the one before it"));
      if (tensor.data > expected)
        throw InputError(
            cat("there is a hole of ", tensor.data - expected, " bytes before tensor '", tensor.name, "'"));
      expected += tensor.bytes;
    }
    if (expected != data + data_size)
      throw InputError(cat("has ", data + data_size - expected, " bytes after its last tensor"));
  } catch (const nlohmann::json::exception& error) {
    munmap(map_, size_);
    throw fail(cat("its header is no valid JSON: it is broken or no safetensors file"));
  } catch (const InputError& error) {
    munmap(map_, size_);
    throw fail(error.what());
  }
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      map_(std::exchange(other.map_, nullptr)),
      size_(other.size_),
      tensors_(std::move(other.tensors_)),
      metadata_(std::move(other.metadata_)) {}

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) munmap(map_, size_);
}

void SafetensorsFile::forget(const StoredTensor& tensor) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(tensor.data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(tensor.data) + tensor.bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, std::vector<TensorSpec> tensors)
    : path_(std::move(path)) {
  const std::string header = header_text(tensors);
  const uint64_t header_size = header.size();
  size_t offset = 8 + header.size();
  for (const TensorSpec& tensor : tensors) {
    slots_[tensor.name] = {offset, tensor.bytes(), tensor.bytes() == 0};
    offset += tensor.bytes();
  }
  descriptor_ = open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw write_failure(path_, errno, offset);
  try {
    int error = posix_fallocate(descriptor_, 0, static_cast<off_t>(offset));
    if (error == EOPNOTSUPP || error == EINVAL)
      error = ftruncate(descriptor_, static_cast<off_t>(offset)) == 0 ? 0 : errno;
    if (error != 0) throw write_failure(path_, error, offset);
    write_all(descriptor_, path_, &header_size, sizeof header_size, 0);
    write_all(descriptor_, path_, header.data(), header.size(), sizeof header_size);
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      slots_(std::move(other.slots_)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ >= 0) close(descriptor_);
}

void SafetensorsWriter::write(std::string_view name, const void* data, size_t bytes) {
  const auto slot = slots_.find(name);
  if (slot == slots_.end()) throw Error(cat(path_.string(), ": tensor '", name, "' is not in its layout"));
  if (slot->second.bytes != bytes)
    throw Error(cat(path_.string(), ": tensor '", name, "' has ", slot->second.bytes, " bytes, not ", bytes));
  write_all(descriptor_, path_, data, bytes, slot->second.offset);
  slot->second.written = true;
}

void SafetensorsWriter::finish() {
  for (const auto& [name, slot] : slots_) {
    if (!slot.written) throw Error(cat(path_.string(), ": tensor '", name, "' was never written"));
  }
  if (fsync(descriptor_) != 0) throw write_failure(path_, errno, 0);
  if (close(std::exchange(descriptor_, -1)) != 0) throw write_failure(path_, errno, 0);
}

size_t SafetensorsWriter::file_size(const std::vector<TensorSpec>& tensors) {
  size_t size = 8 + header_text(tensors).size();
  for (const TensorSpec& tensor : tensors) size += tensor.bytes();
  return size;
}

}  // namespace gptq
