// Members of option structs as JSON, by their types.
#pragma once

#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_numbers.h"
#include "recipe/option.h"
#include "recipe/rules.h"
#include "recipe/words.h"

namespace gptq {

template <typename Choice>
std::vector<std::string> word_list() {
  std::vector<std::string> words;
  for (const auto& [word, choice] : words_of(Choice{})) words.emplace_back(word);
  return words;
}

// Throws InputError with the words there are.
template <typename Choice>
Choice choice_of(const std::string& text) {
  for (const auto& [word, choice] : words_of(Choice{})) {
    if (word == text) return choice;
  }
  throw InputError(cat(text, ": there are ", listed(word_list<Choice>())));
}

using Lists = std::vector<std::vector<std::string>>;

// Lists of names as JSON has them; or as a text: that JSON, or names with commas.
inline Lists lists_of(const Json& value) {
  if (!value.is_string()) return value.get<Lists>();
  const std::string text = value.get<std::string>();
  if (text.empty()) return {};
  if (text.front() == '[') {
    try {
      const Json json = Json::parse(text);
      if (!json.empty() && json.front().is_string()) return {json.get<std::vector<std::string>>()};
      return json.get<Lists>();
    } catch (const nlohmann::json::exception&) {
      throw InputError(cat(text, ": give a JSON list of lists of names, or names with commas"));
    }
  }
  std::vector<std::string> names;
  std::istringstream stream(text);
  for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
  return {names};
}

template <typename Value>
struct IsOptional : std::false_type {};
template <typename Value>
struct IsOptional<std::optional<Value>> : std::true_type {};

template <typename Value>
constexpr OptionInfo::Kind kind_of() {
  using Kind = OptionInfo::Kind;
  if constexpr (std::is_same_v<Value, bool>)
    return Kind::flag;
  else if constexpr (std::is_floating_point_v<Value>)
    return Kind::number;
  else if constexpr (std::is_integral_v<Value>)
    return std::is_signed_v<Value> ? Kind::integer : Kind::natural;
  else
    return Kind::text;
}

template <typename Value>
Json json_of(const Value& value) {
  if constexpr (HasWords<Value>)
    return name_of(value);
  else if constexpr (IsOptional<Value>::value)
    return value ? json_of(*value) : Json();
  else if constexpr (std::is_same_v<Value, std::vector<ModuleRule>>)
    return value.empty() ? Json() : to_json(value);
  else if constexpr (std::is_same_v<Value, Lists>)
    return value.empty() ? Json() : Json(value);
  else
    return value;
}

template <typename Value>
Value value_of(const Json& value) {
  if constexpr (std::is_integral_v<Value> && !std::is_same_v<Value, bool>)
    return whole_number<Value>(value);
  else
    return value.get<Value>();
}

template <typename Value>
void set_from(Value& to, const Json& value) {
  if constexpr (HasWords<Value>)
    to = choice_of<Value>(value.get<std::string>());
  else if constexpr (IsOptional<Value>::value)
    to = value_of<typename Value::value_type>(value);
  else if constexpr (std::is_same_v<Value, std::vector<ModuleRule>>)
    to = parse_rules(value.is_string() ? Json::parse(value.get<std::string>()) : value, "");
  else if constexpr (std::is_same_v<Value, Lists>)
    to = lists_of(value);
  else
    to = value_of<Value>(value);
}

template <typename Value>
constexpr OptionInfo::Kind member_kind() {
  if constexpr (IsOptional<Value>::value)
    return kind_of<typename Value::value_type>();
  else
    return kind_of<Value>();
}

template <typename Struct, typename Value>
Access<Struct> access(Value Struct::*member) {
  Access<Struct> result;
  result.kind = member_kind<Value>();
  if constexpr (HasWords<Value>) result.words = word_list<Value>();
  result.get = [member](const Struct& options) { return json_of(options.*member); };
  result.set = [member](Struct& options, const Json& value) { set_from(options.*member, value); };
  return result;
}

// A number of bytes, which may come as a text such as "5GB".
template <typename Struct>
Access<Struct> bytes_access(int64_t Struct::*member) {
  Access<Struct> result = access(member);
  result.kind = OptionInfo::Kind::text;
  result.set = [member](Struct& options, const Json& value) {
    options.*member = value.is_string() ? parse_bytes(value.get<std::string>()) : whole_number<int64_t>(value);
  };
  return result;
}

}  // namespace gptq
