// What calibration and evaluation read: a file, standard input, token ids in memory, or the text of the program's own.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace gptq {

using TokenSequence = std::vector<int32_t>;

// Records: .jsonl, .ndjson or .json (a record a line; or an array of records; or values of several lines), .csv or .tsv
// (a record a row, whose first row has the names). "-": stdin, records if its first non-blank character is '{', else
// text. Any other name: one stream of text. Each may be compressed with gzip. A record is
//   "text"; "input_ids"; "messages"; "conversations" (from, value); a question with its answer (turns in
//   documents.cpp); a text or an array of ids without a key; or what `key` names, if it is set.
// Chats are rendered with the model's chat template, which is given the record's "tools", "documents" and
// "chat_template_kwargs" too. The tokenizer is opened only if text has to be tokenized.
struct TextSource {
  std::string file;  // empty: the built-in text
  std::function<const Tokenizer&()> tokenizer;
  const std::vector<TokenSequence>* ids = nullptr;  // token ids in memory, as records of "input_ids"; no file is read
  std::stop_token stop = {};                        // asked record by record; Cancelled is thrown
  std::string key = {};                             // of a record; empty: the first one that is known
  std::string key_option = "calibration_key";       // that sets `key`, for messages
};

// The source in a message.
std::string name_of(const TextSource& source);

// A source's bytes: not empty, unpacked, valid UTF-8. Throws InputError for what is missing, empty or of another
// format, each with the way out.
std::string read_source(const TextSource& source);

// What its name says of its records: "train.jsonl.GZ" -> ".jsonl"; empty if there is nothing.
std::string extension_of(const TextSource& source);

}  // namespace gptq
