// The last step of a run: reads the output as a loader would, and compares it with what the run computed and with the
// original model.
#pragma once

#include <filesystem>

#include "gptq/report.h"
#include "run/held_back.h"
#include "run/walk.h"

namespace gptq {

// A folder that this run has written, opened to run on its devices.
struct WrittenModel {
  // References must outlive it.
  WrittenModel(const std::filesystem::path& folder, const Facts& facts, Devices& devices);

  const Checkpoint checkpoint;
  DeviceSession session;
};

// The mean loss, in nats, of predicting each token of `batches` but the first of a sequence from the frequencies of
// tokens in `text` alone, each counted once more than it occurs. A working model predicts better than that.
double loss_of_frequencies(const std::vector<TokenSequence>& text,
                           const std::vector<std::vector<TokenSequence>>& batches, int64_t vocabulary);

// Compares after the last block; fills in all of the result but `held_back` and `frequency_nll`. stops: all blocks of
// `output`, a session over the written model, or over the counting one of a rehearsal. keeps_head: the output head is
// not quantized.
Check check_output(HeldBack& held_back, Session& original, Session& output, const std::vector<Stop>& stops,
                   RunObserver& observer, bool keeps_head, const WalkOptions& options);

}  // namespace gptq
