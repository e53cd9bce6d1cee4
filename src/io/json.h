// JSON files of people: parsed with limits on size and depth, and errors that name the file, line and column.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

using Json = nlohmann::ordered_json;  // keeps the order of keys, so that a copied config.json looks like its source

// Arrays and objects in one another: deeper than any configuration. Values are copied and freed by recursion.
constexpr int kMaxJsonDepth = 100;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;    // of config.json, an index, a recipe, a template, ...
constexpr size_t kMaxTokenizerBytes = size_t{1} << 30;  // of the files of a tokenizer

// The first byte that lies deeper than `depth` levels of a JSON text; npos if there is none.
size_t find_deeper(std::string_view text, int depth = kMaxJsonDepth);

// Parses a text, with Infinity, -Infinity and NaN as Python writes them. Throws InputError with the file, and the line
// and column of a syntax error. AnyJson: nlohmann::json or Json.
template <typename AnyJson>
AnyJson parse_json(std::string_view text, const std::filesystem::path& file);

// A text as JSON can hold it: bytes that are not UTF-8, which paths and arguments may have, are replaced by U+FFFD.
std::string as_utf8(const std::string& text);

// A value in a message: its start, in ASCII.
std::string shown(const Json& value);

// The string that an object has under a key; "" if there is none.
std::string string_in(const Json& object, std::string_view key);

// JSON as a file has it, with two spaces of indentation, and those words for numbers that are not finite.
std::string to_text(Json json);

// Parses a regular file of at most `limit` bytes.
Json read_json(const std::filesystem::path& path, size_t limit = kMaxConfigBytes);

}  // namespace gptq
