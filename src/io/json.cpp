#include "io/json.h"

#include <algorithm>

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

template <typename AnyJson>
AnyJson parse_json(std::string_view text, const std::filesystem::path& file) {
  if (const size_t deep = find_deeper(text); deep != std::string_view::npos)
    throw file_error(file, "nested deeper than ", kMaxJsonDepth, " levels at ", position(text, deep + 1));
  try {
    return AnyJson::parse(text);
  } catch (const typename AnyJson::parse_error& error) {
    throw file_error(file, "not valid JSON at ", position(text, error.byte));
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
