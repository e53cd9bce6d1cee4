// Texts, records or token ids -> token sequences for calibration and evaluation. Sequences are cut, never padded.
#pragma once

#include <cstdint>
#include <vector>

#include "data/text_source.h"

namespace gptq {

struct CalibrationRequest {
  int64_t samples = 128, sequence_length = 2048;
  uint64_t seed = 0;
};

// Calibration sequences, in the order of the file.
// Text: one stream; of records the concatenation of its documents, each tokenized separately (with the tokenizer's
// special tokens; rendered chats contain their own). It is cut into whole windows of sequence_length without
// overlap; the remainder is dropped. Seed 0 takes window floor(i * n / samples) of n for i = 0 .. samples - 1, spread
// evenly; any other seed draws a set of `samples` windows, the same on every machine; all windows are taken if n <=
// samples. input_ids: each line is one sequence, cut to sequence_length but not padded; seed 0 takes the first
// `samples` records, any other seed draws.
// A file of records of more than 8 MiB (unpacked) is cut into `samples` equal parts, by bytes, and each part gives the
// first sequence_length tokens of the documents from a place in it on: its start with seed 0, else one in its first
// three quarters that the seed draws. Only those records are parsed. If a part has fewer tokens, all of the file is
// read, as above; of input_ids the same records are taken as of a small file.
// Throws InputError for missing, empty, non-UTF-8 or too short input (with the
// tokens found and needed), broken records (with their number) and records of different kinds; UnsupportedError for
// messages whose chat template uses what is not supported.
std::vector<TokenSequence> read_calibration(const TextSource& source, const CalibrationRequest& request);

// A calibration, and more sequences of the same text that are not in it.
struct CalibrationText {
  std::vector<TokenSequence> sequences, held_back;
};
// The same sequences, and up to `held_back` others, spread evenly over what is left; none if nothing is left.
CalibrationText read_calibration_text(const TextSource& source, const CalibrationRequest& request, int64_t held_back);

// Evaluation windows: the stream of text as above, cut into windows of `context` tokens without overlap; the first
// `windows` of them (0: all). input_ids: each record is a window; those of fewer than 2 tokens, which predict nothing,
// are skipped. Of a file of more than 8 MiB no more records are parsed than these windows need.
std::vector<TokenSequence> read_windows(const TextSource& source, int64_t context, int64_t windows);

// All tokens of the source, one sequence per document (a text without records is one), as printed by `gptq tokenize`.
std::vector<TokenSequence> read_documents(const TextSource& source);

}  // namespace gptq
