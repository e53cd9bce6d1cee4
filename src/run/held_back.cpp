#include "run/held_back.h"

#include <algorithm>
#include <utility>

#include "data/batches.h"

namespace gptq {

int64_t held_back_sequences(const Calibration& calibration) {
  return std::clamp<int64_t>(calibration.samples / 16, 1, 4);
}

int64_t held_back_length(const Calibration& calibration) {
  constexpr int64_t kLongest = 512;
  return std::min(calibration.sequence_length, kLongest);
}

std::vector<std::vector<TokenSequence>> held_back_batches(const CalibrationText& text, const Calibration& calibration,
                                                          int64_t batch_size, int64_t batch_tokens) {
  std::vector<TokenSequence> sequences = text.held_back.empty() ? text.sequences : text.held_back;
  sequences.resize(std::min(sequences.size(), static_cast<size_t>(held_back_sequences(calibration))));
  const auto length = static_cast<size_t>(held_back_length(calibration));
  for (TokenSequence& sequence : sequences) sequence.resize(std::min(sequence.size(), length));
  return make_batches(sequences, batch_size, batch_tokens);
}

HeldBack::HeldBack(Session& session, std::vector<std::vector<TokenSequence>> batches, ThreadPool* pool)
    : batches_(std::move(batches)) {
  Backend& backend = session.first();
  for (const auto& sequences : batches_) {
    Batch batch = session.embed(sequences, pool);
    originals_.add({.offsets = batch.offsets, .residual = copy_of(backend, batch.residual)}, backend);
    quantized_.add(std::move(batch), backend);
  }
}

}  // namespace gptq
