// Reads text sources into documents of token ids and cuts them into windows.
#include "data/calibration.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"
#include "io/file.h"
#include "io/json.h"

namespace gptq {
namespace {

using nlohmann::json;

struct Documents {
  std::vector<TokenSequence> sequences;
  bool are_ids = false;  // given as ids: each sequence is separate, not part of a stream
};

std::string name_of(const TextSource& source) {
  if (source.ids != nullptr) return "the list of token ids";
  return source.file == "-" ? "stdin" : source.file;
}

// Ids in memory, held to the rules for those in a file.
Documents checked_ids(const TextSource& source) {
  for (size_t i = 0; i < source.ids->size(); ++i) {
    const TokenSequence& sequence = (*source.ids)[i];
    const auto negative = std::find_if(sequence.begin(), sequence.end(), [](int32_t id) { return id < 0; });
    if (sequence.empty() || negative != sequence.end()) {
      throw InputError(cat(name_of(source), ", sequence ", i, ": found ",
                           sequence.empty() ? std::string("nothing") : std::to_string(*negative),
                           " where token ids (integers from 0 on) were expected"));
    }
  }
  return {*source.ids, true};
}

std::string read_stdin() {
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (std::ferror(stdin) != 0) throw cannot("stdin", "read it", errno);
  return text;
}

std::string read_bytes(const TextSource& source) {
  if (source.file == "-") return read_stdin();
  const auto kind = type_of(source.file);
  if (kind == std::filesystem::file_type::not_found)
    throw InputError(cat("the text file ", source.file, " does not exist"));
  if (kind == std::filesystem::file_type::directory)
    throw InputError(cat(source.file, " is a folder where a .txt or .jsonl file was expected"));
  const Descriptor file(open(source.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw cannot(source.file, "open it", errno);
  return read_to_end(*file, source.file);
}

std::string read_text(const TextSource& source) {
  std::string text = read_bytes(source);
  if (text.find_first_not_of(" \t\r\n") == text.npos)
    throw InputError(cat(name_of(source), " is empty where text or token ids were expected"));
  if (int64_t offset = invalid_utf8_offset(text); offset >= 0) {
    auto line = 1 + std::count(text.begin(), text.begin() + offset, '\n');
    throw InputError(
        cat(name_of(source), " is not valid UTF-8 at byte ", offset, " (line ", line, "); convert it to UTF-8"));
  }
  return text;
}

bool is_jsonl(const TextSource& source, const std::string& text) {
  if (source.file == "-") return text[text.find_first_not_of(" \t\r\n")] == '{';
  auto extension = std::filesystem::path(source.file).extension();
  return extension == ".jsonl" || extension == ".json";
}

// Reads the lines of a .jsonl; the first one determines the kind of all lines.
class LineReader {
 public:
  explicit LineReader(const TextSource& source) : source_(source) {}

  Documents read(std::string_view text) {
    Documents documents;
    for (size_t start = 0; start < text.size();) {
      check_stop(source_.stop);
      size_t end = std::min(text.find('\n', start), text.size());
      ++line_;
      std::string_view line = text.substr(start, end - start);
      start = end + 1;
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      documents.sequences.push_back(read_line(line));
    }
    documents.are_ids = kind_ == "input_ids";
    return documents;
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw InputError(cat(name_of(source_), ", line ", line_, ": ", args...));
  }

  TokenSequence read_line(std::string_view text) {
    if (find_deeper(text) != text.npos)
      fail("JSON nested deeper than ", kMaxJsonDepth, " levels; a .jsonl file has one object per line");
    json line;
    try {
      line = json::parse(text);
    } catch (const json::exception& error) {
      fail("broken JSON (", reason_of(error), "); a .jsonl file has one object per line");
    }
    if (line.is_array()) line = json{{"input_ids", std::move(line)}};
    if (!line.is_object()) fail("found ", line.type_name(), " where an object was expected");
    if (kind_.empty()) kind_ = kind_of(line);
    if (!line.contains(kind_))
      fail("\"", kind_, "\" is missing, which the lines before have; a file holds one kind of line");
    const json& value = line.at(kind_);
    if (kind_ == "input_ids") return read_ids(value);
    if (kind_ == "text") {
      if (!value.is_string()) fail("\"text\" is ", value.type_name(), " where a string was expected");
      return source_.tokenizer().encode(value.get_ref<const std::string&>());
    }
    require_small_objects(line);
    return source_.tokenizer().encode(render(text), false);
  }

  std::string kind_of(const json& line) const {
    for (const char* kind : {"input_ids", "text", "messages"})
      if (line.contains(kind)) return kind;
    fail("found none of the keys \"text\", \"messages\" and \"input_ids\"");
  }

  TokenSequence read_ids(const json& values) const {
    if (!values.is_array() || values.empty()) fail("\"input_ids\" is not an array of at least one token id");
    TokenSequence ids;
    ids.reserve(values.size());
    for (const json& value : values) {
      bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= kLargestId) &&
                  value.get<int64_t>() >= 0;
      if (!fits)
        fail("found ", excerpt_of(value), " in \"input_ids\" where a token id (an integer from 0 on) was expected");
      ids.push_back(value.get<int32_t>());
    }
    return ids;
  }

  // A line of messages, read again with its keys in order, which templates show.
  std::string render(std::string_view text) {
    if (!template_) template_.emplace(source_.tokenizer().folder());
    Json line = Json::parse(text);
    const auto take = [&](const char* key) { return line.contains(key) ? std::move(line.at(key)) : Json(); };
    Chat chat{.messages = take("messages"),
              .tools = take("tools"),
              .documents = take("documents"),
              .variables = take("chat_template_kwargs")};
    try {
      return template_->render(std::move(chat));
    } catch (const UnsupportedError& error) {
      throw UnsupportedError(cat(name_of(source_), ", line ", line_, ": ", error.what()));
    } catch (const InputError& error) {
      fail(error.what());
    }
  }

  // Keys in order take a time that grows with the square of their number.
  void require_small_objects(const json& value) const {
    constexpr size_t kMostKeys = 1000;
    if (value.is_object() && value.size() > kMostKeys) fail("an object has more than ", kMostKeys, " keys");
    if (value.is_structured())
      for (const json& inner : value) require_small_objects(inner);
  }

  static constexpr uint64_t kLargestId = std::numeric_limits<int32_t>::max();
  const TextSource& source_;
  int64_t line_ = 0;
  std::string kind_;
  std::optional<ChatTemplate> template_;
};

Documents read(const TextSource& source) {
  if (source.ids != nullptr) return checked_ids(source);
  std::string text = read_text(source);
  if (is_jsonl(source, text)) return LineReader(source).read(text);
  check_stop(source.stop);
  return {{source.tokenizer().encode(text)}, false};
}

TokenSequence join(const std::vector<TokenSequence>& documents) {
  TokenSequence stream;
  for (const TokenSequence& document : documents) stream.insert(stream.end(), document.begin(), document.end());
  return stream;
}

TokenSequence window(const TokenSequence& stream, int64_t index, int64_t length) {
  return {stream.begin() + index * length, stream.begin() + (index + 1) * length};
}

int64_t whole_windows(const TextSource& source, const TokenSequence& stream, int64_t length) {
  auto windows = static_cast<int64_t>(stream.size()) / length;
  if (windows == 0)
    throw InputError(cat(name_of(source), " is too short: ", stream.size(), " tokens found, at least ", length,
                         " needed for one sequence; give more text or ask for shorter sequences"));
  return windows;
}

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  int64_t below(int64_t limit) {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return static_cast<int64_t>((z ^ z >> 31) % static_cast<uint64_t>(limit));
  }

 private:
  uint64_t state_;
};

// Draws `samples` numbers below `count` without replacement, by the first steps of a Fisher-Yates shuffle; sorted.
std::vector<int64_t> draw(int64_t count, int64_t samples, uint64_t seed) {
  std::vector<int64_t> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  Random random(seed);
  for (int64_t i = 0; i < samples; ++i)
    std::swap(numbers[static_cast<size_t>(i)], numbers[static_cast<size_t>(i + random.below(count - i))]);
  numbers.resize(static_cast<size_t>(samples));
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// The numbers below `count` that are not among these ascending ones.
std::vector<int64_t> others(const std::vector<int64_t>& numbers, int64_t count) {
  std::vector<int64_t> all(static_cast<size_t>(count)), rest;
  std::iota(all.begin(), all.end(), 0);
  std::set_difference(all.begin(), all.end(), numbers.begin(), numbers.end(), std::back_inserter(rest));
  return rest;
}

// At most `most` of these, spread evenly.
std::vector<int64_t> spread(const std::vector<int64_t>& numbers, int64_t most) {
  const auto count = static_cast<int64_t>(numbers.size()), taken = std::min(most, count);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < taken; ++i) chosen.push_back(numbers[static_cast<size_t>(i * count / taken)]);
  return chosen;
}

void require_positive(const char* option, int64_t value) {
  if (value <= 0) throw option_error(option, " is ", value, " where at least 1 was expected");
}

}  // namespace

std::vector<TokenSequence> read_calibration(const TextSource& source, const CalibrationRequest& request) {
  return read_calibration_text(source, request, 0).sequences;
}

CalibrationText read_calibration_text(const TextSource& source, const CalibrationRequest& request, int64_t held_back) {
  require_positive("samples", request.samples);
  require_positive("sequence_length", request.sequence_length);
  Documents documents = read(source);
  TokenSequence stream = documents.are_ids ? TokenSequence() : join(documents.sequences);
  int64_t count = documents.are_ids ? static_cast<int64_t>(documents.sequences.size())
                                    : whole_windows(source, stream, request.sequence_length);
  int64_t samples = std::min(request.samples, count);
  std::vector<int64_t> chosen;
  if (request.seed != 0) {
    chosen = draw(count, samples, request.seed);
  } else {
    for (int64_t i = 0; i < samples; ++i) chosen.push_back(documents.are_ids ? i : i * count / samples);
  }
  const auto take = [&](const std::vector<int64_t>& indices) {
    std::vector<TokenSequence> sequences;
    for (int64_t index : indices) {
      if (!documents.are_ids) {
        sequences.push_back(window(stream, index, request.sequence_length));
        continue;
      }
      TokenSequence& line = documents.sequences[static_cast<size_t>(index)];
      line.resize(std::min(line.size(), static_cast<size_t>(request.sequence_length)));
      sequences.push_back(std::move(line));
    }
    return sequences;
  };
  return {take(chosen), take(spread(others(chosen, count), held_back))};
}

std::vector<TokenSequence> read_windows(const TextSource& source, int64_t context, int64_t windows) {
  if (context < 2) throw option_error("context", " is ", context, " where at least 2 was expected");
  if (windows < 0) throw option_error("windows", " is ", windows, " where at least 0 (all) was expected");
  Documents documents = read(source);
  std::vector<TokenSequence> sequences;
  if (documents.are_ids) {
    sequences = std::move(documents.sequences);
    std::erase_if(sequences, [](const TokenSequence& line) { return line.size() < 2; });
    if (sequences.empty())
      throw InputError(cat(name_of(source), " is too short: no line has the 2 token ids that one prediction needs"));
    if (windows > 0 && windows < static_cast<int64_t>(sequences.size())) sequences.resize(static_cast<size_t>(windows));
    return sequences;
  }
  TokenSequence stream = join(documents.sequences);
  int64_t count = whole_windows(source, stream, context);
  if (windows > 0) count = std::min(count, windows);
  for (int64_t i = 0; i < count; ++i) sequences.push_back(window(stream, i, context));
  return sequences;
}

std::vector<TokenSequence> read_documents(const TextSource& source) { return read(source).sequences; }

}  // namespace gptq
