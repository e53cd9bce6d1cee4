// Text, jsonl or ready token ids -> token sequences, for calibration and for evaluation. Sequences are cut, never
// padded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace gptq {

using TokenSequence = std::vector<int32_t>;

// A file of one of the kinds: .jsonl or .json with "text", "messages" or "input_ids" on each line (or a bare array of
// ids, as `gptq tokenize` prints them), any other name one stream of text, "-" stdin (jsonl when its first non-blank
// character is '{', else text). The tokenizer is made only when text has to be tokenized; "messages" are rendered with
// the chat template beside it.
struct TextSource {
  std::string file;
  std::function<const Tokenizer&()> tokenizer;
  const std::vector<TokenSequence>* ids = nullptr;  // token ids in memory, as lines of "input_ids"; no file is read
};

struct CalibrationRequest {
  int64_t samples = 128, sequence_length = 2048;
  uint64_t seed = 0;
};

// Calibration sequences, in the order of the file.
// Text: one stream, which for jsonl is the documents one after the other, each tokenized by itself (special tokens as
// the tokenizer adds them; rendered messages bring their own). The stream is cut into whole windows of sequence_length
// without overlap, the rest is dropped. Of n windows, seed 0 takes number floor(i * n / samples) for i = 0, 1, ...,
// samples - 1, spread evenly over the stream; any other seed draws a set of `samples` windows of its own, the same on
// every machine; where n <= samples all are taken. input_ids: each line is one sequence, cut to sequence_length, kept
// as it is when shorter; seed 0 takes the first `samples` lines, any other seed draws. Throws InputError for missing,
// empty, non-UTF-8 or too short input (tokens found and needed said), broken lines (line number said), lines of
// different kinds; UnsupportedError for messages whose chat template is not known.
std::vector<TokenSequence> read_calibration(const TextSource& source, const CalibrationRequest& request);

// Evaluation windows: the stream of text as above, cut into windows of `context` without overlap, the rest dropped; the
// first `windows` of them (0: all). input_ids are taken line by line as they are; lines of fewer than 2 tokens, which
// predict nothing, are left out.
std::vector<TokenSequence> read_windows(const TextSource& source, int64_t context, int64_t windows);

// All tokens of the source, one sequence per document (a .txt is one document): what `gptq tokenize` prints.
std::vector<TokenSequence> read_documents(const TextSource& source);

}  // namespace gptq
