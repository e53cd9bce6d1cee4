// The mutator of safetensors files: changes dtypes, shapes, offsets and the rest of the header's JSON; then mostly
// makes the header's length, the offsets and the size of the data fit each other again.
#include <cstring>

#include "fuzz/fuzz.h"
#include "fuzz/json_mutation.h"

using namespace gptq;
using namespace gptq::fuzz;

namespace {

struct Dtype {
  const char* name;
  size_t bits;
};
constexpr Dtype kDtypes[] = {{"BOOL", 8},    {"U8", 8},   {"I8", 8},      {"F8_E4M3", 8}, {"F8_E5M2", 8},
                             {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16},    {"F16", 16},    {"BF16", 16},
                             {"I32", 32},    {"U32", 32}, {"F32", 32},    {"F64", 64},    {"I64", 64},
                             {"U64", 64},    {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"C64", 64}};

bool is_tensor(const Json& entry) {
  return entry.is_object() && entry.contains("shape") && entry["shape"].is_array() && entry.contains("data_offsets");
}

void mutate_tensor(Json& tensor, Random& random) {
  Json& shape = tensor["shape"];
  switch (below(4, random)) {
    case 0:
      tensor["dtype"] = kDtypes[below(std::size(kDtypes), random)].name;
      return;
    case 1:
      shape.push_back(below(5, random));
      return;
    case 2:
      if (!shape.empty())
        shape[below(shape.size(), random)] = below(8, random) == 0 ? any_value(random) : Json(below(9, random));
      return;
    default:
      tensor["data_offsets"] = {below(64, random), below(64, random)};
  }
}

size_t bytes_of(const Json& tensor) {
  size_t bits = 8;
  for (const Dtype& dtype : kDtypes)
    if (tensor.contains("dtype") && tensor["dtype"] == dtype.name) bits = dtype.bits;
  for (const Json& extent : tensor["shape"])
    bits = std::min(bits * (extent.is_number_unsigned() ? std::min(extent.get<size_t>(), size_t{1} << 20) : 1),
                    size_t{1} << 30);
  return bits / 8;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  uint64_t length = 0;
  if (size >= sizeof length) std::memcpy(&length, data, sizeof length);
  std::optional<Json> header;
  const std::string_view rest(reinterpret_cast<const char*>(data), size);
  if (size >= sizeof length && length <= size - sizeof length) header = parsed(rest.substr(sizeof length, length));
  if (!header || !header->is_object() || below(8, random) == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<Json*> tensors;
  for (Json& entry : *header)
    if (is_tensor(entry)) tensors.push_back(&entry);
  if (!tensors.empty() && below(3, random) != 0) {
    mutate_tensor(*tensors[below(tensors.size(), random)], random);
  } else if (below(3, random) == 0) {
    (*header)[mutated("t", 4, random).substr(0, 1) == "_" ? "__metadata__" : "t" + std::to_string(below(8, random))] = {
        {"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {0, 4}}};
  } else {
    mutate(*header, random);
  }
  if (below(4, random) != 0) {
    size_t offset = 0;
    for (Json& entry : *header) {
      if (!is_tensor(entry)) continue;
      const size_t bytes = bytes_of(entry);
      entry["data_offsets"] = {offset, offset + bytes};
      offset += bytes;
    }
  }
  const std::string values(rest.substr(sizeof length + length));
  const std::string file = safetensors_of(text_of(*header), values.empty() ? "x" : values);
  if (file.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, file.data(), file.size());
  return file.size();
}
