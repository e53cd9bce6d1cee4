#include "io/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "io/file.h"

namespace gptq {
namespace {

// "line 3, column 14": of the byte before `end`.
std::string position(std::string_view text, size_t end) {
  const std::string_view seen = text.substr(0, end);
  const auto line = std::count(seen.begin(), seen.end(), '\n') + 1;
  return cat("line ", line, ", column ", seen.size() - (seen.rfind('\n') + 1));
}

}  // namespace

size_t find_deeper(std::string_view text, int depth) {
  int level = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        for (++i; i < text.size() && text[i] != '"'; ++i) i += text[i] == '\\' ? 1 : 0;
        break;
      case '[':
      case '{':
        if (++level > depth) return i;
        break;
      case ']':
      case '}':
        --level;
        break;
      default:
        break;
    }
  }
  return std::string_view::npos;
}

namespace {

// Python writes numbers that JSON does not have by these words; between, they are texts that no file has.
constexpr std::pair<std::string_view, std::string_view> kNotFinite[] = {
    {"-Infinity", "\"\\u0000-Infinity\""}, {"Infinity", "\"\\u0000Infinity\""}, {"NaN", "\"\\u0000NaN\""}};

// The text with these words quoted, outside of strings; empty if it has none.
std::string with_quoted_words(std::string_view text) {
  std::string quoted;
  size_t copied = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) i += text[i] == '\\' ? 1 : 0;
      continue;
    }
    for (const auto& [word, quote] : kNotFinite) {
      if (text.substr(i, word.size()) != word) continue;
      quoted.append(text.substr(copied, i - copied)).append(quote);
      copied = i + word.size();
      i = copied - 1;
      break;
    }
  }
  return quoted.empty() ? quoted : quoted.append(text.substr(copied));
}

// Those texts as numbers.
template <typename AnyJson>
void restore_numbers(AnyJson& json) {
  if (json.is_structured()) {
    for (auto& value : json) restore_numbers(value);
  } else if (json.is_string()) {
    const auto& text = json.template get_ref<const std::string&>();
    if (text.empty() || text[0] != '\0') return;
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const std::string_view word = std::string_view(text).substr(1);
    if (word == "NaN")
      json = std::numeric_limits<double>::quiet_NaN();
    else if (word == "Infinity" || word == "-Infinity")
      json = word[0] == '-' ? -kInfinity : kInfinity;
  }
}

void quote_numbers(Json& json) {
  if (json.is_structured()) {
    for (Json& value : json) quote_numbers(value);
  } else if (json.is_number_float() && !std::isfinite(json.get<double>())) {
    const double value = json.get<double>();
    json = std::string(1, '\0') + (std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity");
  }
}

}  // namespace

std::string as_utf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

std::string shown(const Json& value) {
  constexpr size_t kShown = 80;
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

std::string string_in(const Json& object, std::string_view key) {
  if (!object.is_object()) return "";
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string to_text(Json json) {
  quote_numbers(json);
  std::string text = json.dump(2) + "\n";
  for (const auto& [word, quote] : kNotFinite) {
    for (size_t at = text.find(quote); at != text.npos; at = text.find(quote, at)) text.replace(at, quote.size(), word);
  }
  return text;
}

template <typename AnyJson>
AnyJson parse_json(std::string_view text, const std::filesystem::path& file) {
  if (const size_t deep = find_deeper(text); deep != std::string_view::npos)
    throw file_error(file, "nested deeper than ", kMaxJsonDepth, " levels at ", position(text, deep + 1));
  const auto parse = [&](std::string_view json) {
    try {
      return AnyJson::parse(json);
    } catch (const typename AnyJson::parse_error& error) {
      throw file_error(file, "not valid JSON at ", position(json, error.byte));
    }
  };
  try {
    if (AnyJson json = AnyJson::parse(text, nullptr, false); !json.is_discarded()) return json;
    const std::string quoted = with_quoted_words(text);
    if (quoted.empty()) return parse(text);
    AnyJson json = parse(quoted);
    restore_numbers(json);
    return json;
  } catch (const typename AnyJson::exception&) {
    throw file_error(file, "holds a number that is too large");
  }
}

template nlohmann::json parse_json(std::string_view text, const std::filesystem::path& file);
template Json parse_json(std::string_view text, const std::filesystem::path& file);

Json read_json(const std::filesystem::path& path, size_t limit) {
  return parse_json<Json>(read_text(path, limit), path);
}

}  // namespace gptq
