// Reads text sources into documents of token ids and cuts them into windows.
#include "data/calibration.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "data/documents.h"
#include "data/records.h"

namespace gptq {
namespace {

// Files of records up to this size are parsed whole.
constexpr size_t kReadWhole = size_t{8} << 20;

struct Documents {
  std::vector<TokenSequence> sequences;
  bool are_ids = false;  // given as ids: each sequence is separate, not part of a stream
};

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

// The bytes of a source, and its records.
class Text {
 public:
  explicit Text(const TextSource& source) : source_(source), bytes_(read_source(source)) {}

  std::unique_ptr<Records> records() const {
    std::string extension = extension_of(source_);
    if (source_.file == "-" && bytes_[bytes_.find_first_not_of(" \t\r\n")] == '{') extension = ".jsonl";
    return open_records(bytes_, name_of(source_), extension);
  }
  bool is_large() const { return bytes_.size() > kReadWhole; }
  const std::string& bytes() const { return bytes_; }

 private:
  const TextSource& source_;
  std::string bytes_;
};

// All documents; or those that `windows` windows of `context` tokens need, if there are so many.
Documents read(const TextSource& source, const Text& text, int64_t windows = 0, int64_t context = 0) {
  const std::unique_ptr<Records> records = text.records();
  check_stop(source.stop);
  if (records == nullptr) return {{source.tokenizer().encode(text.bytes())}, false};
  Documents documents;
  DocumentReader reader(source, *records);
  int64_t tokens = 0, ids = 0;  // ids: records with a window of their own
  const auto are_enough = [&] { return windows > 0 && (reader.are_ids() ? ids : tokens / context) >= windows; };
  for (Record record; !are_enough() && records->next(record);) {
    check_stop(source.stop);
    documents.sequences.push_back(reader.read(record));
    tokens += static_cast<int64_t>(documents.sequences.back().size());
    ids += documents.sequences.back().size() >= 2 ? 1 : 0;
  }
  documents.are_ids = reader.are_ids();
  if (documents.sequences.empty())
    throw InputError(cat(name_of(source), " has no records where text or token ids were expected"));
  return documents;
}

Documents read(const TextSource& source) {
  return source.ids != nullptr ? checked_ids(source) : read(source, Text(source));
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

// Numbers of the records of ids, or windows of a stream, that a request takes.
std::vector<int64_t> choose(int64_t count, const CalibrationRequest& request, bool are_ids) {
  const int64_t samples = std::min(request.samples, count);
  if (request.seed != 0) return draw(count, samples, request.seed);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < samples; ++i) chosen.push_back(are_ids ? i : i * count / samples);
  return chosen;
}

void cut(TokenSequence& sequence, int64_t length) {
  sequence.resize(std::min(sequence.size(), static_cast<size_t>(length)));
}

// The chosen ones of a large file's records of ids.
CalibrationText sample_ids(const TextSource& source, const Text& text, const CalibrationRequest& request,
                           int64_t held_back) {
  int64_t count = 0;
  const auto counted = text.records();
  for (Record record; counted->next(record);) ++count;
  const auto take = [&](const std::vector<int64_t>& indices) {
    const auto records = text.records();
    DocumentReader reader(source, *records);
    std::vector<TokenSequence> sequences;
    int64_t at = 0;
    Record record;
    for (const int64_t index : indices) {
      for (check_stop(source.stop); at <= index; ++at) records->next(record);
      sequences.push_back(reader.read(record));
      cut(sequences.back(), request.sequence_length);
    }
    return sequences;
  };
  const std::vector<int64_t> chosen = choose(count, request, true);
  return {take(chosen), take(spread(others(chosen, count), held_back))};
}

// The places in a file at which windows start, one in each of equal parts.
std::vector<size_t> starts_of(size_t bytes, const CalibrationRequest& request) {
  const auto samples = static_cast<size_t>(request.samples);
  Random random(request.seed);
  std::vector<size_t> starts;
  for (size_t i = 0; i < samples; ++i) {
    const size_t start = bytes / samples * i, most = bytes / samples * 3 / 4;
    starts.push_back(start +
                     (request.seed == 0 ? 0 : static_cast<size_t>(random.below(static_cast<int64_t>(most) + 1))));
  }
  return starts;
}

// What the last eighths of some parts of a large file begin with, which no window reaches that starts in the first
// three quarters of a part several times its length.
std::vector<TokenSequence> sample_between(const TextSource& source, const Text& text, const CalibrationRequest& request,
                                          int64_t held_back) {
  const std::unique_ptr<Records> records = text.records();
  DocumentReader reader(source, *records);
  const size_t part = text.bytes().size() / static_cast<size_t>(request.samples);
  std::vector<int64_t> parts(static_cast<size_t>(request.samples));
  std::iota(parts.begin(), parts.end(), 0);
  std::vector<TokenSequence> sequences;
  Record record;
  bool more = records->next(record);
  for (const int64_t index : spread(parts, held_back)) {
    check_stop(source.stop);
    const size_t end = part * static_cast<size_t>(index + 1);
    while (more && record.start < end - part / 8) more = records->next(record);
    TokenSequence sequence;
    for (; more && record.start < end && static_cast<int64_t>(sequence.size()) < request.sequence_length;
         more = records->next(record)) {
      const TokenSequence document = reader.read(record);
      sequence.insert(sequence.end(), document.begin(), document.end());
    }
    cut(sequence, request.sequence_length);
    if (sequence.size() >= 2) sequences.push_back(std::move(sequence));
  }
  return sequences;
}

// A window from each part of a large file; none if a part has too few tokens for it.
CalibrationText sample(const TextSource& source, const Text& text, const CalibrationRequest& request,
                       int64_t held_back) {
  constexpr int64_t kSmallestPart = 64;  // bytes; smaller ones have no window
  if (request.samples > static_cast<int64_t>(text.bytes().size()) / kSmallestPart) return {};
  const std::unique_ptr<Records> records = text.records();
  DocumentReader reader(source, *records);
  const std::vector<size_t> starts = starts_of(text.bytes().size(), request);
  CalibrationText sampled;
  Record record;
  bool more = records->next(record);
  for (size_t i = 0; i < starts.size(); ++i) {
    check_stop(source.stop);
    while (more && record.start < starts[i]) more = records->next(record);
    TokenSequence& window = sampled.sequences.emplace_back();
    const size_t end = i + 1 < starts.size() ? starts[i + 1] : text.bytes().size();
    for (; static_cast<int64_t>(window.size()) < request.sequence_length; more = records->next(record)) {
      if (!more || record.start >= end) return {};
      const TokenSequence document = reader.read(record);
      if (reader.are_ids()) return sample_ids(source, text, request, held_back);
      window.insert(window.end(), document.begin(), document.end());
    }
    cut(window, request.sequence_length);
  }
  if (held_back > 0) sampled.held_back = sample_between(source, text, request, held_back);
  return sampled;
}

// Of a large file no more than the first windows need.
Documents read_for_windows(const TextSource& source, int64_t context, int64_t windows) {
  if (source.ids != nullptr) return checked_ids(source);
  const Text text(source);
  return text.is_large() ? read(source, text, windows, context) : read(source, text);
}

}  // namespace

std::vector<TokenSequence> read_calibration(const TextSource& source, const CalibrationRequest& request) {
  return read_calibration_text(source, request, 0).sequences;
}

CalibrationText read_calibration_text(const TextSource& source, const CalibrationRequest& request, int64_t held_back) {
  require_positive("samples", request.samples);
  require_positive("sequence_length", request.sequence_length);
  Documents documents;
  if (source.ids != nullptr) {
    documents = checked_ids(source);
  } else {
    const Text text(source);
    if (text.is_large() && text.records() != nullptr) {
      CalibrationText sampled = sample(source, text, request, held_back);
      if (!sampled.sequences.empty()) return sampled;
    }
    documents = read(source, text);
  }
  const TokenSequence stream = documents.are_ids ? TokenSequence() : join(documents.sequences);
  const int64_t count = documents.are_ids ? static_cast<int64_t>(documents.sequences.size())
                                          : whole_windows(source, stream, request.sequence_length);
  const auto take = [&](const std::vector<int64_t>& indices) {
    std::vector<TokenSequence> sequences;
    for (const int64_t index : indices) {
      sequences.push_back(documents.are_ids ? std::move(documents.sequences[static_cast<size_t>(index)])
                                            : window(stream, index, request.sequence_length));
      cut(sequences.back(), request.sequence_length);
    }
    return sequences;
  };
  const std::vector<int64_t> chosen = choose(count, request, documents.are_ids);
  return {take(chosen), take(spread(others(chosen, count), held_back))};
}

std::vector<TokenSequence> read_windows(const TextSource& source, int64_t context, int64_t windows) {
  if (context < 2) throw option_error("context", " is ", context, " where at least 2 was expected");
  if (windows < 0) throw option_error("windows", " is ", windows, " where at least 0 (all) was expected");
  Documents documents = read_for_windows(source, context, windows);
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
