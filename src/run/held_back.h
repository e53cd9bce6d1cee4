// Sequences that pass a run's blocks beside the calibration, the quantized and the original ones, and that no Hessian
// sees: what the output is checked with at the end.
#pragma once

#include <vector>

#include "run/session.h"
#include "run/streams.h"

namespace gptq {

// How many sequences are held back from a calibration, and how many of their tokens are read.
int64_t held_back_sequences(const Calibration& calibration);
int64_t held_back_length(const Calibration& calibration);

// Their tokens in batches, from the calibration itself where its text has no others.
std::vector<std::vector<TokenSequence>> held_back_batches(const CalibrationText& text, const Calibration& calibration,
                                                          int64_t batch_size, int64_t batch_tokens);

class HeldBack {
 public:
  // Embeds the batches, on the session's first device.
  HeldBack(Session& session, std::vector<std::vector<TokenSequence>> batches, ThreadPool* pool);

  const std::vector<std::vector<TokenSequence>>& batches() const { return batches_; }
  // The states after the blocks so far.
  StateStore& quantized() { return quantized_; }
  StateStore& originals() { return originals_; }
  Streams streams() { return {quantized_, &originals_}; }

 private:
  const std::vector<std::vector<TokenSequence>> batches_;
  StateStore quantized_{StatePlace::device}, originals_{StatePlace::device};
};

}  // namespace gptq
