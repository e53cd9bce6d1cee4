#include "data/text_source.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string_view>
#include <utility>

#include <fcntl.h>

#include "base/error.h"
#include "data/built_in_text.h"
#include "data/data_sets.h"
#include "data/gzip.h"
#include "data/tokenizer/unicode.h"
#include "io/file.h"

namespace gptq {
namespace {

std::string read_stdin() {
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (std::ferror(stdin) != 0) throw cannot("stdin", "read it", errno);
  return text;
}

std::string read_bytes(const TextSource& source) {
  if (source.file.empty()) return std::string(built_in_text());
  if (source.file == "-") return read_stdin();
  const auto kind = type_of(source.file);
  if (kind == std::filesystem::file_type::not_found) {
    if (const std::string way = how_to_get(source.file); !way.empty())
      throw InputError(cat("the text file ", source.file, " does not exist; if the data set is meant: ", way));
    throw InputError(cat("the text file ", source.file, " does not exist"));
  }
  if (kind == std::filesystem::file_type::directory)
    throw InputError(cat(source.file, " is a folder where a .txt or .jsonl file was expected"));
  const Descriptor file(open(source.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw cannot(source.file, "open it", errno);
  return read_to_end(*file, source.file);
}

// Files that are no text, by their first bytes.
void refuse_other_formats(const TextSource& source, std::string_view bytes) {
  using namespace std::string_view_literals;
  const std::string name = name_of(source);
  if (bytes.starts_with("PAR1")) {
    const std::string stem = source.file.substr(0, source.file.rfind(".parquet"));
    throw InputError(cat(name, " is Parquet, which is not read; convert it: python3 -c \"import pandas; ",
                         "pandas.read_parquet('", name, "').to_json('", stem,
                         ".jsonl', orient='records', lines=True)\""));
  }
  constexpr std::pair<std::string_view, std::string_view> kKinds[] = {
      {"\x28\xb5\x2f\xfd"sv, "compressed (zstd); unpack it first"},
      {"\xfd"
       "7zXZ\0"sv,
       "compressed (xz); unpack it first"},
      {"BZh"sv, "compressed (bzip2); unpack it first"},
      {"PK\x03\x04"sv, "a ZIP archive; unpack it first"},
      {"ARROW1"sv, "an Arrow file; write its records as .jsonl (datasets: to_json)"},
      {"SQLite format 3"sv, "a database; write its records as .jsonl"},
      {"\xff\xfe"sv, "UTF-16; convert it to UTF-8"},
      {"\xfe\xff"sv, "UTF-16; convert it to UTF-8"},
  };
  for (const auto& [start, what] : kKinds)
    if (bytes.starts_with(start)) throw InputError(cat(name, " is ", what));
}

}  // namespace

std::string name_of(const TextSource& source) {
  if (source.ids != nullptr) return "the list of token ids";
  if (source.file.empty()) return kBuiltInTextName;
  return source.file == "-" ? "stdin" : source.file;
}

std::string read_source(const TextSource& source) {
  std::string text = read_bytes(source);
  if (is_gzip(text)) text = gunzip(text, name_of(source));
  if (text.find_first_not_of(" \t\r\n") == text.npos)
    throw InputError(cat(name_of(source), " is empty where text or token ids were expected"));
  refuse_other_formats(source, text);
  if (const int64_t offset = invalid_utf8_offset(text); offset >= 0) {
    const auto line = 1 + std::count(text.begin(), text.begin() + offset, '\n');
    throw InputError(
        cat(name_of(source), " is not valid UTF-8 at byte ", offset, " (line ", line, "); convert it to UTF-8"));
  }
  return text;
}

std::string extension_of(const TextSource& source) {
  if (source.file.empty()) return ".jsonl";
  const auto lower = [](std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
  };
  std::filesystem::path path(lower(source.file));
  if (path.extension() == ".gz") path.replace_extension();
  return path.extension();
}

}  // namespace gptq
