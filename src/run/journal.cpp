#include "run/journal.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/digest.h"
#include "io/json_numbers.h"
#include "report/linear_json.h"
#include "run/fingerprint.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// Of a journal: a line per block, with a few hundred bytes a linear.
constexpr size_t kMaxJournal = size_t{1} << 30;
constexpr size_t kChecksum = 32;  // characters

// The JSON of a line without its newline; nothing if it is broken.
std::optional<Json> parse_line(std::string_view line) {
  if (line.size() < kChecksum + 1 || hex_digest(line.substr(kChecksum + 1)) != line.substr(0, kChecksum)) return {};
  const std::string_view text = line.substr(kChecksum + 1);
  if (find_deeper(text) != text.npos) return {};
  return Json::parse(text);
}

// Their checksums are right, so lines of another form are no accident; they do not count all the same.
void require(bool is_met, const Json& line) {
  if (!is_met) throw Json::other_error::create(500, "not a line of a journal", &line);
}

Json json_of(const Journal::Part& part) {
  Json tensors = Json::object(), linears = Json::array();
  for (const auto& [name, digest] : part.tensors) tensors[name] = digest;
  for (const LinearReport& linear : part.linears) {
    Json entry = to_json(linear);
    entry["block"] = linear.block;
    entry["expert"] = linear.expert;
    linears.push_back(std::move(entry));
  }
  return {{"part", part.block}, {"dropped_rows", part.dropped_rows}, {"tensors", tensors}, {"linears", linears}};
}

Journal::Part part_of(const Json& json) {
  Journal::Part part{.block = whole_number<int64_t>(json.at("part")),
                     .dropped_rows = whole_number<int64_t>(json.at("dropped_rows"))};
  require(json.at("tensors").is_object(), json);
  for (const auto& [name, digest] : json.at("tensors").items())
    part.tensors.emplace_back(name, whole_number<uint64_t>(digest));
  for (const Json& entry : json.at("linears")) {
    LinearReport linear = parse_linear_report(entry);
    linear.block = whole_number<int64_t>(entry.at("block"));
    linear.expert = whole_number<int64_t>(entry.at("expert"));
    part.linears.push_back(std::move(linear));
  }
  return part;
}

Json json_of(const Journal::States& states) {
  return {{"states", states.block}, {"file", states.file}, {"digest", states.digest}};
}

Json json_of(const std::vector<ProbedStep>& steps) {
  Json list = Json::array();
  for (const ProbedStep& step : steps) {
    Json candidates = Json::array();
    for (const BitUnit::Candidate& candidate : step.unit.candidates)
      candidates.push_back({{"bits", candidate.bits}, {"loss", candidate.loss}});
    list.push_back({{"linears", step.linears}, {"weights", step.unit.weights}, {"candidates", candidates}});
  }
  return {{"measured", list}};
}

std::vector<ProbedStep> steps_of(const Json& list) {
  std::vector<ProbedStep> steps;
  for (const Json& entry : list) {
    ProbedStep step{.linears = entry.at("linears"), .unit = {.weights = whole_number<int64_t>(entry.at("weights"))}};
    for (const Json& candidate : entry.at("candidates"))
      step.unit.candidates.push_back({whole_number<int>(candidate.at("bits")), candidate.at("loss")});
    require(!step.unit.candidates.empty(), entry);
    steps.push_back(std::move(step));
  }
  return steps;
}

Journal::States states_of(const Json& json) {
  Journal::States states{whole_number<int64_t>(json.at("states")), json.at("file"),
                         whole_number<uint64_t>(json.at("digest"))};
  // A file beside the journal.
  require(states.block >= 0 && !states.file.empty() && states.file.find('/') == std::string::npos, json);
  return states;
}

}  // namespace

Journal::Journal(fs::path file, const Json& fingerprint) : path_(std::move(file)), fingerprint_(fingerprint.dump()) {
  if (!is_there(path_)) return;
  const std::string text = read_text(path_, kMaxJournal);
  size_t start = 0;
  for (size_t end = 0; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
    try {
      const std::optional<Json> line = parse_line(std::string_view(text).substr(start, end - start));
      if (!line) return;
      if (start == 0) {
        if (const std::string found = difference(line->at("run"), fingerprint); !found.empty()) {
          throw file_error(path_.parent_path(), "cannot be continued by this run: ", found,
                           "; run it as it was, or start again with `overwrite` and without `resume`");
        }
      } else {
        read(*line);
      }
    } catch (const Json::exception&) {
      return;
    }
  }
}

void Journal::read(const Json& line) {
  require(line.is_object(), line);
  if (line.contains("part")) {
    Part part = part_of(line);
    if (part.block == static_cast<int64_t>(parts_.size())) parts_.push_back(std::move(part));
  } else if (line.contains("states")) {
    states_ = states_of(line);
  } else if (line.contains("measured")) {
    measured_ = steps_of(line.at("measured"));
  }
}

// Written beside and renamed: a run that is killed meanwhile leaves the old journal.
void Journal::begin(size_t parts) {
  const fs::path fresh = path_.string() + ".new";
  file_ = Descriptor(open(fresh.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666));
  if (!file_) throw write_failure(fresh, errno, 0);
  size_ = 0;
  append(cat("{\"run\":", fingerprint_, "}"));
  if (measured_) append(json_of(*measured_).dump());
  parts_.resize(std::min(parts, parts_.size()));
  for (const Part& part : parts_) append(json_of(part).dump());
  if (states_ && states_->block > static_cast<int64_t>(parts_.size())) states_.reset();
  if (states_) append(json_of(*states_).dump());
  std::error_code error;
  fs::rename(fresh, path_, error);
  if (error) throw cannot(path_, "write it", error.value());
  sync_folder(path_.parent_path());
  writer_.emplace();
}

void Journal::append(const std::string& json) {
  const std::string text = hex_digest(json) + " " + json + "\n";
  write_all(*file_, path_, text.data(), text.size(), size_);
  size_ += text.size();
  sync_file(*file_, path_);
}

template <typename Noted>
void Journal::submit(Noted noted, std::function<void()> sync) {
  const std::lock_guard lock(mutex_);
  notes_.push_back(writer_->submit([this, noted = std::move(noted), sync = std::move(sync)] {
    sync();
    append(json_of(noted).dump());
  }));
}

void Journal::note(Part part, std::function<void()> sync) { submit(std::move(part), std::move(sync)); }
void Journal::note(States states, std::function<void()> sync) { submit(std::move(states), std::move(sync)); }

void Journal::settle() {
  const std::lock_guard lock(mutex_);
  for (const std::future<void>& note : notes_) note.wait();
}

void Journal::wait() {
  std::vector<std::future<void>> notes;
  {
    const std::lock_guard lock(mutex_);
    notes = std::exchange(notes_, {});
  }
  for (std::future<void>& note : notes) note.get();
}

}  // namespace gptq
