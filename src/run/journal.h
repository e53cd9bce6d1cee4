// The journal of a run, OUT.partial/journal: what is whole on the disk at each block boundary, so that a later run can
// continue. A line is a checksum and a JSON object: first the fingerprint of the run, then measurements, blocks, saved
// states. Lines are synced in the background, each after what it speaks of; a torn last line does not count.
#pragma once

#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/background.h"
#include "format/format.h"
#include "gptq/report.h"
#include "io/file.h"
#include "io/json.h"
#include "quant/bit_choice.h"

namespace gptq {

class Journal {
 public:
  // The linears of a block, or of the output head, in the output.
  struct Part {
    int64_t block = 0;  // the head: the number of blocks
    Digests tensors;
    std::vector<LinearReport> linears;
    int64_t dropped_rows = 0;
  };
  // The states before a block, in a file beside the journal.
  struct States {
    int64_t block = 0;
    std::string file;
    uint64_t digest = 0;
  };

  // Reads what an earlier run noted, if there is a journal; lines from the first broken one on do not count. Throws
  // InputError, naming the difference, if that run had another fingerprint.
  Journal(std::filesystem::path file, const Json& fingerprint);

  // Of the earlier run: what it measured to choose bits, its parts in order, its last states.
  const std::optional<std::vector<ProbedStep>>& measured() const { return measured_; }
  void set_measured(std::vector<ProbedStep> steps) { measured_ = std::move(steps); }  // before begin()
  const std::vector<Part>& parts() const { return parts_; }
  const std::optional<States>& states() const { return states_; }

  // Writes the journal anew, with the first `parts` parts of what was found, and opens it for notes.
  void begin(size_t parts);
  // Notes a part after `sync` has synced it; both in the background, from any thread.
  void note(Part part, std::function<void()> sync);
  void note(States states, std::function<void()> sync);
  // Waits for all notes so far; wait() rethrows the first failure.
  void settle();
  void wait();

 private:
  void read(const Json& line);
  void append(const std::string& json);
  template <typename Noted>
  void submit(Noted noted, std::function<void()> sync);

  std::filesystem::path path_;
  const std::string fingerprint_;  // as JSON
  std::optional<std::vector<ProbedStep>> measured_;
  std::vector<Part> parts_;
  std::optional<States> states_;
  Descriptor file_;
  size_t size_ = 0;
  std::mutex mutex_;  // of notes_
  std::vector<std::future<void>> notes_;
  std::optional<BackgroundWorker> writer_;  // last: uses the members above
};

}  // namespace gptq
