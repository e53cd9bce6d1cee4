// Keys of config.json, read with errors that name file and key.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/checkpoint.h"

namespace gptq {

class Keys {
 public:
  Keys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw InputError(where_ + ": not a JSON object");
  }

  InputError wrong(const std::string& key, const std::string& what) const {
    return InputError(cat(where_, ": '", key, "' ", what));
  }

  const Json* find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  // A size: a whole number from 1 to a billion. Required without a default.
  int64_t size(const std::string& key, int64_t missing = 0) const {
    const Json* value = find(key);
    if (value == nullptr && missing > 0) return missing;
    if (value == nullptr) throw wrong(key, "is missing");
    if (!value->is_number_integer() || value->get<double>() < 1 || value->get<double>() > 1e9) {
      throw wrong(key, cat("is ", value->dump(), ", where a whole number from 1 to 1000000000 is needed"));
    }
    return value->get<int64_t>();
  }

  double number(const std::string& key, double missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_number()) throw wrong(key, cat("is ", value->dump(), ", where a number is needed"));
    return value->get<double>();
  }

  double above(double least, const std::string& key, double missing) const {
    const double value = number(key, missing);
    if (value > least && std::isfinite(value)) return value;
    throw wrong(key, cat("is ", value, ", where a number above ", least, " is needed"));
  }

  double positive(const std::string& key, double missing) const { return above(0, key, missing); }

  bool flag(const std::string& key, bool missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) throw wrong(key, cat("is ", value->dump(), ", where true or false is needed"));
    return value->get<bool>();
  }

  std::string word(const std::string& key, const std::string& missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_string()) throw wrong(key, cat("is ", value->dump(), ", where a string is needed"));
    return value->get<std::string>();
  }

  std::vector<double> numbers(const std::string& key, int64_t count) const {
    const Json* value = find(key);
    const bool fits = value != nullptr && value->is_array() && static_cast<int64_t>(value->size()) == count &&
                      std::all_of(value->begin(), value->end(),
                                  [](const Json& number) { return number.is_number() && number.get<double>() > 0; });
    if (!fits) throw wrong(key, cat("needs ", count, " positive numbers, one per pair of a head"));
    return value->get<std::vector<double>>();
  }

  // A whole number of any sign and size.
  int64_t whole(const std::string& key, int64_t missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_number_integer()) throw wrong(key, cat("is ", value->dump(), ", where a whole number is needed"));
    return value->get<int64_t>();
  }

  // The first of several spellings of a key that is present, or else the first.
  std::string spelled(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      if (find(name) != nullptr) return name;
    }
    return *names.begin();
  }

  // A list with one element per block, or nullptr if absent.
  const Json* list(const std::string& key, int64_t blocks) const {
    const Json* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_array() || static_cast<int64_t>(value->size()) != blocks)
      throw wrong(key, cat("needs ", blocks, " elements, one per block"));
    return value;
  }

  Keys object(const std::string& key) const { return {object_.at(key), cat(where_, ": ", key)}; }

  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string where_;
};

}  // namespace gptq
