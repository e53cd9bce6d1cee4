// Keys of config.json, read with errors that name file and key.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/checkpoint.h"
#include "io/json_numbers.h"

namespace gptq {

// The largest values that config.json may have, each far above that of any model. Lists with an element for each of
// them are small, and products of two widths and a count stay below 2^63.
constexpr int64_t kMostBlocks = 10'000, kMostHeads = 65'536, kMostExperts = 65'536;
constexpr int64_t kMostTaps = 64;                 // of a convolution
constexpr int64_t kMostWidth = int64_t{1} << 24;  // features of a vector, of all heads together too
constexpr int64_t kMostTokens = INT32_MAX;        // a vocabulary, positions, a window; and any other whole number
// Numbers lie between, so that they, their inverses and their products with sizes are finite in f32.
constexpr double kSmallestNumber = 1e-30, kLargestNumber = 1e30;

// The keys of each object that somebody looked for, whether they are there or not.
using KeyLog = std::map<const Json*, std::set<std::string>>;

class Keys {
 public:
  // Notes in `log`, which must outlive it, what is looked for.
  Keys(const Json& object, std::string where, KeyLog* log = nullptr)
      : object_(object), where_(std::move(where)), log_(log) {
    if (!object.is_object()) throw InputError(where_ + ": not a JSON object");
    if (log_ != nullptr) (*log_)[&object_];
  }

  InputError wrong(const std::string& key, const std::string& what) const {
    return InputError(cat(where_, ": '", key, "' ", what));
  }

  const Json* find(const std::string& key) const {
    if (log_ != nullptr) (*log_)[&object_].insert(key);
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  // A size: a whole number from 1 to `most`. Required without a default.
  int64_t size(const std::string& key, int64_t missing = 0, int64_t most = kMostWidth) const {
    const Json* value = find(key);
    if (value == nullptr && missing > 0) return missing;
    if (value == nullptr) throw wrong(key, "is missing");
    return whole_number(key, *value, 1, most);
  }

  // A list with a size for each block.
  std::vector<int64_t> sizes(const std::string& key, int64_t blocks, int64_t most = kMostWidth) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_array() || static_cast<int64_t>(value->size()) != blocks)
      throw wrong(key, cat("is ", value == nullptr ? "missing" : shown(*value), ", where a size or ", blocks,
                           " of them are needed"));
    std::vector<int64_t> sizes;
    for (const Json& size : *value) sizes.push_back(whole_number(key, size, 1, most));
    return sizes;
  }

  // A size that may be a list with the same for every block.
  int64_t size_of_all(const std::string& key, int64_t most = kMostWidth) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_array() || value->empty()) return size(key, 0, most);
    const bool same = std::all_of(value->begin(), value->end(), [&](const Json& one) { return one == value->front(); });
    if (!same) throw UnsupportedError(cat(where_, ": '", key, "' differs between blocks, which is not supported"));
    return whole_number(key, value->front(), 1, most);
  }

  double number(const std::string& key, double missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_number()) throw wrong(key, cat("is ", shown(*value), ", where a number is needed"));
    const double number = value->get<double>();
    if (std::abs(number) <= kLargestNumber) return number;
    throw wrong(key, cat("is ", shown(*value), ", where a number of at most ", kLargestNumber, " is needed"));
  }

  // A number above `least`, which is not negative, up to `most`.
  double above(double least, const std::string& key, double missing, double most = kLargestNumber) const {
    const double value = number(key, missing);
    if (value > least && value >= kSmallestNumber && value <= most) return value;
    throw wrong(key, cat("is ", value, ", where a number ",
                         least > 0 ? cat("above ", least) : cat("from ", kSmallestNumber), " to ", most, " is needed"));
  }

  double positive(const std::string& key, double missing, double most = kLargestNumber) const {
    return above(0, key, missing, most);
  }

  bool flag(const std::string& key, bool missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) throw wrong(key, cat("is ", shown(*value), ", where true or false is needed"));
    return value->get<bool>();
  }

  std::string word(const std::string& key, const std::string& missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_string()) throw wrong(key, cat("is ", shown(*value), ", where a string is needed"));
    return value->get<std::string>();
  }

  std::vector<double> numbers(const std::string& key, int64_t count) const {
    const Json* value = find(key);
    const bool fits = value != nullptr && value->is_array() && static_cast<int64_t>(value->size()) == count &&
                      std::all_of(value->begin(), value->end(), [](const Json& number) {
                        return number.is_number() && number.get<double>() >= kSmallestNumber &&
                               number.get<double>() <= kLargestNumber;
                      });
    if (!fits) {
      throw wrong(key, cat("needs ", count, " numbers from ", kSmallestNumber, " to ", kLargestNumber,
                           ", one per pair of a head"));
    }
    return value->get<std::vector<double>>();
  }

  // A whole number of any sign.
  int64_t whole(const std::string& key, int64_t missing) const {
    const Json* value = find(key);
    return value == nullptr ? missing : whole_number(key, *value, -kMostTokens, kMostTokens);
  }

  // The first of several spellings of a key that is present, or else the first.
  std::string spelled(std::initializer_list<const char*> names) const {
    const char* first = nullptr;
    for (const char* name : names) {
      if (find(name) != nullptr && first == nullptr) first = name;
    }
    return first == nullptr ? *names.begin() : first;
  }

  // A list with one element per block, or nullptr if absent.
  const Json* list(const std::string& key, int64_t blocks) const {
    const Json* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_array() || static_cast<int64_t>(value->size()) != blocks)
      throw wrong(key, cat("needs ", blocks, " elements, one per block"));
    return value;
  }

  Keys object(const std::string& key) const {
    find(key);
    return {object_.at(key), cat(where_, ": ", key), log_};
  }

  const Json& all() const { return object_; }

  const std::string& where() const { return where_; }

 private:
  int64_t whole_number(const std::string& key, const Json& value, int64_t least, int64_t most) const {
    if (is_whole(value, least, most)) return value.get<int64_t>();
    throw wrong(key, cat("is ", shown(value), ", where a whole number from ", least, " to ", most, " is needed"));
  }

  const Json& object_;
  std::string where_;
  KeyLog* log_;
};

// config.json as a whole, and the keys of the language model in it, which multimodal models have below one key.
struct Levels {
  Levels(const Json& json, std::string where, KeyLog* log = nullptr)
      : whole(json, std::move(where), log), name(inner_name(whole)) {}

  bool nested() const { return !name.empty(); }
  Keys text() const { return nested() ? whole.object(name) : whole; }

  const Keys whole;
  const std::string name;

 private:
  static std::string inner_name(const Keys& whole) {
    for (const char* name : {"text_config", "llm_config", "language_config"}) {
      if (whole.find(name) != nullptr) return name;
    }
    return "";
  }
};

// The spellings of sizes that a config.json has.
struct SizeKeys {
  explicit SizeKeys(const Keys& keys)
      : heads(keys.spelled({"num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"})),
        kv_heads(keys.spelled({"num_key_value_heads", "num_kv_heads", "n_head_kv"})),
        blocks(keys.spelled({"num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"})),
        hidden(keys.spelled({"hidden_size", "n_embd", "n_embed", "d_model", "model_dim"})),
        intermediate(keys.find("block_ff_dim") != nullptr ? "block_ff_dim"
                                                          : keys.spelled({"intermediate_size", "n_inner", "ffn_dim",
                                                                          "ffn_hidden_size", "moe_intermediate_size"})),
        head_dim(keys.spelled({"head_dim", "kv_channels"})),
        positions(keys.spelled(
            {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_context_length"})),
        experts(keys.spelled({"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"})) {}

  std::string heads, kv_heads, blocks, hidden, intermediate, head_dim, positions, experts;
};

}  // namespace gptq
