#include "run/continuation.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace gptq {

Continuation::Continuation(const OutputFolder& folder, const Json& fingerprint, int64_t blocks, Collector& collector)
    : folder_(folder), model_blocks_(blocks), collector_(collector), journal_(folder.file("journal"), fingerprint) {}

void Continuation::begin(Output& output) {
  output_ = &output;
  for (const Journal::Part& part : journal_.parts()) {
    if (!output.keep(part.tensors)) break;
    collector_.restored(part.linears, part.dropped_rows);
    ++parts_;
  }
  dropped_rows_ = collector_.dropped_rows();
  if (journal_.states()) states_file_ = journal_.states()->file;
  journal_.begin(static_cast<size_t>(parts_));
  if (parts_ > 0) {
    collector_.remark(Level::message,
                      cat("resume: ", blocks(), " of ", model_blocks_, " blocks are done, from an earlier run"));
  }
}

int64_t Continuation::restore_states(const std::vector<StateStore*>& stores, Backend& backend) {
  const auto& states = journal_.states();
  if (!states || !gptq::restore_states(folder_.file(states->file), states->digest, stores, backend)) return 0;
  return states->block;
}

void Continuation::note_part(int64_t part) {
  const int64_t dropped = collector_.dropped_rows() - std::exchange(dropped_rows_, collector_.dropped_rows());
  output_->after_writes([this, part, dropped, linears = std::exchange(linears_, {})](Digests tensors) {
    Journal::Part done{.block = part, .tensors = std::move(tensors), .linears = {}, .dropped_rows = dropped};
    for (const LinearReport* linear : linears) done.linears.push_back(*linear);
    journal_.note(std::move(done), [this] { output_->flush(); });
  });
  parts_ = part + 1;
}

// States that cannot be saved cost time later, but not the result.
void Continuation::save_states(int64_t block, const std::vector<StateStore*>& stores, Backend& backend) {
  const int64_t bytes = saved_bytes(stores);
  const auto begin = SavingSchedule::Clock::now();
  if (cannot_save_ || !schedule_.is_due(bytes, begin)) return;
  // Two files in turn, so that one is whole while the other is written.
  std::string name = states_file_ == "states-0" ? "states-1" : "states-0";
  const std::filesystem::path path = folder_.file(name);
  try {
    journal_.settle();  // the file that is replaced is no longer the last one noted
    const uint64_t digest = gptq::save_states(path, stores, backend);
    journal_.note(Journal::States{block, name, digest}, [path] {
      const Descriptor file = open_regular(path);
      sync_file(*file, path);
    });
    states_file_ = std::move(name);
    schedule_.saved(bytes, begin, SavingSchedule::Clock::now());
  } catch (const InputError& error) {
    cannot_save_ = true;
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    collector_.remark(Level::warning, cat(error.what(), ": states are not saved any more, so `resume` takes longer"));
  }
}

void Continuation::end() {
  try {
    journal_.wait();
  } catch (const std::exception& error) {
    if (output_ != nullptr && output_->flush_failed()) return;  // its finish() says so
    collector_.remark(Level::warning,
                      cat("the journal could not be written, so that this run could not be resumed: ", error.what()));
  }
}

void Continuation::leave() {
  if (output_ == nullptr || parts_ == 0) return;
  output_->settle();
  end();
  collector_.remark(Level::message, cat(folder_.path().string(), " has ", blocks(), " of ", model_blocks_,
                                        " blocks: the same job with `resume` continues there"));
}

}  // namespace gptq
