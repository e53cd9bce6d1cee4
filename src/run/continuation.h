// What lets a later run continue this one, and this one an earlier one: the journal's notes at the boundaries of the
// walk, and the states there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/output_folder.h"
#include "report/collect.h"
#include "run/journal.h"
#include "run/output.h"
#include "run/saved_states.h"

namespace gptq {

class Continuation {
 public:
  // Reads what an earlier run noted in `folder`; throws InputError if that was another job. blocks: of the model.
  // References must outlive it.
  Continuation(const OutputFolder& folder, const Json& fingerprint, int64_t blocks, Collector& collector);

  // What the bits were chosen by, here or in an earlier run.
  const std::optional<std::vector<ProbedStep>>& measured() const { return journal_.measured(); }
  void set_measured(std::vector<ProbedStep> steps) { journal_.set_measured(std::move(steps)); }

  // Takes over the parts of the output that an earlier run finished, and begins the notes of this one.
  void begin(Output& output);
  // Finished parts: blocks, then the head.
  int64_t parts() const { return parts_; }
  int64_t blocks() const { return std::min(parts_, model_blocks_); }
  // Reads the states that were saved last into `stores`. Returns the block that they are before; 0 if there are none.
  int64_t restore_states(const std::vector<StateStore*>& stores, Backend& backend);

  // The address stays valid until the part is noted.
  void add(const LinearReport& linear) { linears_.push_back(&linear); }
  // Notes that a block is done, or the head with the number of blocks.
  void note_part(int64_t part);
  // Saves the states before a block, if that is due.
  void save_states(int64_t block, const std::vector<StateStore*>& stores, Backend& backend);
  // Waits for all notes, and warns if one of them failed.
  void end();
  // For a run that fails: ends the notes, and says how to go on if something is finished.
  void leave();

 private:
  const OutputFolder& folder_;
  const int64_t model_blocks_;
  Collector& collector_;
  Output* output_ = nullptr;
  Journal journal_;
  SavingSchedule schedule_{SavingSchedule::Clock::now()};
  std::string states_file_;  // the last one noted
  bool cannot_save_ = false;
  int64_t parts_ = 0;
  std::vector<const LinearReport*> linears_;  // of the part at work
  int64_t dropped_rows_ = 0;                  // before the part at work
};

}  // namespace gptq
