// The mutator of inputs in parts: changes one part, as a tree where it is JSON, mostly; crosses two inputs by giving
// one a part, or a value inside it, of the other.
#include <algorithm>
#include <cstring>

#include "fuzz/fuzz.h"
#include "fuzz/json_mutation.h"

using namespace gptq;
using namespace gptq::fuzz;

namespace {

std::vector<std::string> all_parts(const uint8_t* data, size_t size) {
  const auto count = static_cast<size_t>(std::count(data, data + size, static_cast<uint8_t>(kSeparator)));
  return parts_of(data, size, count + 1);
}

size_t write(const std::vector<std::string>& parts, uint8_t* to, size_t most) {
  std::string all;
  for (size_t i = 0; i < parts.size(); ++i) all += (i > 0 ? std::string(1, kSeparator) : "") + parts[i];
  if (all.size() > most) return 0;
  std::memcpy(to, all.data(), all.size());
  return all.size();
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  if (below(8, random) == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<std::string> parts = all_parts(data, size);
  std::string& part = parts[below(parts.size(), random)];
  std::optional<Json> tree;
  if (below(8, random) != 0) tree = parsed(part);
  if (tree) {
    for (size_t changes = 1 + below(3, random); changes > 0; --changes) mutate(*tree, random);
    part = text_of(*tree);
  } else {
    part = mutated(part, 64, random);
  }
  const size_t written = write(parts, data, max_size);
  return written > 0 ? written : LLVMFuzzerMutate(data, size, max_size);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* first, size_t first_size, const uint8_t* second,
                                            size_t second_size, uint8_t* to, size_t most, unsigned seed) {
  Random random(seed);
  std::vector<std::string> parts = all_parts(first, first_size), others = all_parts(second, second_size);
  const size_t i = below(parts.size(), random);
  const std::string& other = others[std::min(i, others.size() - 1)];
  std::optional<Json> tree = parsed(parts[i]), giver = parsed(other);
  if (tree && giver && below(4, random) != 0) {
    // Mostly a value of the same key: a pre_tokenizer, the shape of a tensor.
    Json& node = any_node(*tree, random);
    if (tree->is_object() && giver->is_object() && !giver->empty() && below(2, random) == 0) {
      const auto entry = std::next(giver->begin(), static_cast<std::ptrdiff_t>(below(giver->size(), random)));
      (*tree)[entry.key()] = entry.value();
    } else {
      node = any_node(*giver, random);
    }
    parts[i] = text_of(*tree);
  } else {
    parts[i] = other;
  }
  return write(parts, to, most);
}
