// Text, jsonl or token ids -> token sequences for calibration and evaluation. Sequences are cut, never padded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace gptq {

using TokenSequence = std::vector<int32_t>;

// An input file. .jsonl or .json: each line has "text", "messages" or "input_ids", or is an array of ids as printed by
// `gptq tokenize`. "-": stdin, jsonl if its first non-blank character is '{', else text. Any other name: one stream of
// text. The tokenizer is opened only if text has to be tokenized; "messages" are rendered with the model's chat
// template, which is given the line's "tools", "documents" and "chat_template_kwargs" too.
struct TextSource {
  std::string file;
  std::function<const Tokenizer&()> tokenizer;
  const std::vector<TokenSequence>* ids = nullptr;  // token ids in memory, as lines of "input_ids"; no file is read
  std::stop_token stop = {};                        // asked document by document; Cancelled is thrown
};

struct CalibrationRequest {
  int64_t samples = 128, sequence_length = 2048;
  uint64_t seed = 0;
};

// Calibration sequences, in the order of the file.
// Text: one stream; for jsonl the concatenation of its documents, each tokenized separately (with the tokenizer's
// special tokens; rendered messages contain their own). It is cut into whole windows of sequence_length without
// overlap; the remainder is dropped. Seed 0 takes window floor(i * n / samples) of n for i = 0 .. samples - 1, spread
// evenly; any other seed draws a set of `samples` windows, the same on every machine; all windows are taken if n <=
// samples. input_ids: each line is one sequence, cut to sequence_length but not padded; seed 0 takes the first
// `samples` lines, any other seed draws. Throws InputError for missing, empty, non-UTF-8 or too short input (with the
// tokens found and needed), broken lines (with their number) and lines of different kinds; UnsupportedError for
// messages whose chat template uses what is not supported.
std::vector<TokenSequence> read_calibration(const TextSource& source, const CalibrationRequest& request);

// A calibration, and more sequences of the same text that are not in it.
struct CalibrationText {
  std::vector<TokenSequence> sequences, held_back;
};
// The same sequences, and up to `held_back` others, spread evenly over what is left; none if nothing is left.
CalibrationText read_calibration_text(const TextSource& source, const CalibrationRequest& request, int64_t held_back);

// Evaluation windows: the stream of text as above, cut into windows of `context` tokens without overlap; the first
// `windows` of them (0: all). input_ids: each line is a window; lines of fewer than 2 tokens, which predict nothing,
// are skipped.
std::vector<TokenSequence> read_windows(const TextSource& source, int64_t context, int64_t windows);

// All tokens of the source, one sequence per document (a .txt is one document), as printed by `gptq tokenize`.
std::vector<TokenSequence> read_documents(const TextSource& source);

}  // namespace gptq
