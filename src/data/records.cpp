#include "data/records.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "data/message.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;

constexpr std::string_view kBlank = " \t\r\n";

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlank) == text.npos; }

}  // namespace

template <typename... Args>
void Records::fail(const Record& record, const Args&... args) const {
  throw InputError(cat(place_of(record), ": ", args...));
}

std::string Records::place_of(const Record& record) const { return cat(name_, ", ", unit_, " ", record.number); }

json Records::parse(const Record& record) const {
  if (find_deeper(record.text) != record.text.npos)
    fail(record, "JSON nested deeper than ", kMaxJsonDepth, " levels", hint());
  try {
    return json::parse(record.text);
  } catch (const json::parse_error& error) {
    const size_t at = std::min(record.text.size(), error.byte == 0 ? 0 : error.byte - 1);
    fail(record, "broken JSON at byte ", at + 1, " of it (\"", excerpt(record.text), "\")", hint());
  } catch (const json::exception&) {
    fail(record, "JSON with a number that is out of range", hint());
  }
}

namespace {

// Every line that is not blank.
class Lines final : public Records {
 public:
  Lines(std::string_view text, const std::string& name) : Records(name, "line"), text_(text) {}

  bool next(Record& record) override {
    while (at_ < text_.size()) {
      const size_t end = std::min(text_.find('\n', at_), text_.size());
      record = {text_.substr(at_, end - at_), at_, ++line_};
      at_ = end + 1;
      if (!is_blank(record.text)) return true;
    }
    return false;
  }
  std::string hint() const override { return "; a .jsonl file has one object per line"; }

 private:
  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 0;
};

// The end of the JSON value that starts at `at`, by its brackets and quotes alone; npos if it has none.
size_t end_of_value(std::string_view text, size_t at) {
  int64_t depth = 0;
  for (; at < text.size(); ++at) {
    switch (text[at]) {
      case '"':
        for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\' ? 1 : 0;
        if (at < text.size() && depth == 0) return at + 1;
        break;
      case '[':
      case '{':
        ++depth;
        break;
      case ']':
      case '}':
        if (--depth <= 0) return depth < 0 ? at : at + 1;
        break;
      case ',':
      case '\n':
        if (depth == 0) return at;
        break;
      default:
        break;
    }
  }
  return depth == 0 && at == text.size() ? at : text.npos;
}

// The elements of an array; or values with white space between them, if the text has no array around them.
class Values final : public Records {
 public:
  Values(std::string_view text, const std::string& name, bool in_array)
      : Records(name, "element"), text_(text), in_array_(in_array) {
    at_ = text.find_first_not_of(kBlank) + (in_array ? 1 : 0);
  }

  bool next(Record& record) override {
    if (ended_) return false;
    skip_blank();
    if (at_ == text_.size() && !in_array_) return false;
    record = {{}, at_, ++number_};
    const size_t end_at = at_ < text_.size() ? end_of_value(text_, at_) : text_.npos;
    if (end_at == text_.npos) fail(record, "the file ends in the middle of it; write or download it again");
    record.text = text_.substr(at_, end_at - at_);
    at_ = end_at;
    skip_blank();
    if (in_array_) read_separator(record);
    if (is_blank(record.text)) fail(record, "nothing where a value was expected");
    return true;
  }

 private:
  void skip_blank() { at_ = std::min(text_.find_first_not_of(kBlank, at_), text_.size()); }

  void read_separator(const Record& record) {
    const char next = at_ < text_.size() ? text_[at_] : '\0';
    if (next != ',' && next != ']') fail(record, "neither a comma nor the end of the array after it");
    ended_ = next == ']';
    ++at_;
    if (ended_ && !is_blank(text_.substr(at_)))
      fail(record, "more text after the end of the array; a .jsonl file has a record a line");
  }

  std::string_view text_;
  bool in_array_, ended_ = false;
  size_t at_ = 0;
  int64_t number_ = 0;
};

// A table with a row of names first (RFC 4180): fields between separators, in quotes where they hold separators, line
// ends or quotes, which are doubled there.
class Rows final : public Records {
 public:
  Rows(std::string_view text, const std::string& name, char separator)
      : Records(name, "row"), text_(text), separator_(separator) {
    Record header;
    if (!next(header)) return;
    names_ = fields_of(header);
    auto sorted = names_;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) fail(header, "two columns have the name \"", excerpt(*twice), "\"");
  }

  bool next(Record& record) override {
    while (at_ < text_.size()) {
      const size_t start = at_;
      bool quoted = false;
      for (; at_ < text_.size() && (quoted || text_[at_] != '\n'); ++at_) quoted = quoted != (text_[at_] == '"');
      record = {text_.substr(start, at_ - start), start, ++number_};
      if (quoted)
        fail(record, "a quote without an end (fields with quotes in them are quoted, and their quotes doubled)");
      ++at_;
      if (record.text.ends_with('\r')) record.text.remove_suffix(1);
      if (!is_blank(record.text)) return true;
    }
    return false;
  }

  json parse(const Record& record) const override {
    std::vector<std::string> fields = fields_of(record);
    if (fields.size() != names_.size())
      fail(record, fields.size(), " fields where the first row has ", names_.size(), " names");
    json object = json::object();
    for (size_t i = 0; i < fields.size(); ++i) object[names_[i]] = std::move(fields[i]);
    return object;
  }

 private:
  std::vector<std::string> fields_of(const Record& record) const {
    constexpr size_t kMostFields = 10000;
    const std::string_view row = record.text;
    std::vector<std::string> fields(1);
    for (size_t at = 0; at < row.size();) {
      if (row[at] == separator_) {
        if (fields.size() == kMostFields) fail(record, "more than ", kMostFields, " fields");
        fields.emplace_back();
        ++at;
      } else if (row[at] == '"' && (at == 0 || row[at - 1] == separator_)) {
        at = read_quoted(record, at + 1, fields.back());
      } else {
        fields.back() += row[at++];
      }
    }
    return fields;
  }

  // Returns the place behind the closing quote.
  size_t read_quoted(const Record& record, size_t at, std::string& field) const {
    const std::string_view row = record.text;
    for (; at < row.size(); ++at) {
      if (row[at] != '"') {
        field += row[at];
      } else if (at + 1 < row.size() && row[at + 1] == '"') {
        field += row[at++];
      } else {
        break;
      }
    }
    if (at + 1 < row.size() && row[at + 1] != separator_)
      fail(record, "text after the closing quote of a field (quotes in a quoted field are doubled)");
    return at + 1;
  }

  std::string_view text_;
  char separator_;
  size_t at_ = 0;
  int64_t number_ = 0;
  std::vector<std::string> names_;
};

// Lines, unless the first one does not end its value, or is an array of other things than ids that is all of the file.
std::unique_ptr<Records> open_json(std::string_view text, const std::string& name) {
  const size_t start = text.find_first_not_of(kBlank);
  if (start == text.npos || (text[start] != '[' && text[start] != '{')) return std::make_unique<Lines>(text, name);
  const size_t line_end = std::min(text.find('\n', start), text.size());
  const size_t value_end = end_of_value(text.substr(0, line_end), start);
  const bool ends = value_end != text.npos, has_more = !is_blank(text.substr(line_end));
  const size_t inner = text.find_first_not_of(kBlank, start + 1);
  const bool has_records =
      text[start] == '[' && inner != text.npos && (text[inner] == '{' || text[inner] == '[' || text[inner] == '"');
  if (ends && (has_more || !has_records)) return std::make_unique<Lines>(text, name);
  // A value that nothing ends is a line that is broken.
  if (!has_records && end_of_value(text, start) == text.npos) return std::make_unique<Lines>(text, name);
  return std::make_unique<Values>(text, name, has_records);
}

}  // namespace

std::unique_ptr<Records> open_records(std::string_view text, const std::string& name, const std::string& extension) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  const bool is_table = extension == ".csv" || extension == ".tsv";
  const bool is_json = extension == ".jsonl" || extension == ".json" || extension == ".ndjson";
  if (!is_table && !is_json) return nullptr;
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (is_table) return std::make_unique<Rows>(text, name, extension == ".tsv" ? '\t' : ',');
  return open_json(text, name);
}

}  // namespace gptq
