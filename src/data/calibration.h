// Text, jsonl or ready token ids -> token sequences, for calibration and for evaluation. Sequences are cut, never padded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace gptq {

using TokenSequence = std::vector<int32_t>;

// A file of one of the kinds: .txt (one stream), .jsonl with "text", "messages" or "input_ids" on each line, "-" for stdin (jsonl
// when its first non-blank character is '{', else text). The tokenizer is made only when text has to be tokenized.
struct TextSource {
  std::string file;
  std::function<const Tokenizer&()> tokenizer;
};

struct CalibrationRequest {
  int64_t samples = 128, sequence_length = 2048;
  uint64_t seed = 0;
};

// Calibration sequences. A .txt: tokenized once, `samples` windows of sequence_length spread evenly over it; a shorter stream gives as many whole
// windows as it has. jsonl text: documents tokenized one by one and concatenated in file order, cut into windows; input_ids: each line one sequence, cut to
// sequence_length, kept as it is when shorter, at most `samples` lines. Throws InputError for missing, empty, non-UTF-8 or too short input (tokens found and
// needed said), broken lines (line number said), mixed kinds.
std::vector<TokenSequence> read_calibration(const TextSource& source, const CalibrationRequest& request);

// Evaluation windows: the whole text tokenized once (special tokens as the tokenizer adds them), cut into windows of `context` without overlap,
// the rest dropped; at most `windows` (0: all). A jsonl with input_ids is taken line by line as it is (lines of at least 2 tokens).
std::vector<TokenSequence> read_windows(const TextSource& source, int64_t context, int64_t windows);

// All tokens of the source, one sequence per document (a .txt is one document): what `gptq tokenize` prints.
std::vector<TokenSequence> read_documents(const TextSource& source);

}  // namespace gptq
