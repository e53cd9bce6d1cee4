// Records of any known shape -> documents: token ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "data/chat.h"
#include "data/records.h"
#include "data/text_source.h"

namespace gptq {

// Reads records one by one; the first one determines the shape of all. Throws InputError for what is broken or of
// another shape, UnsupportedError for chats whose template uses what is not supported; both with the record's place.
class DocumentReader {
 public:
  DocumentReader(const TextSource& source, const Records& records) : source_(source), records_(records) {}

  TokenSequence read(const Record& record);
  // Whether the documents were given as ids: each is a sequence of its own, not part of a stream.
  bool are_ids() const { return shape_ == Shape::ids; }

 private:
  enum class Shape { none, ids, text, messages, conversations, turns, completion };
  // A question with its answer, by the keys that data sets have them under; more: what belongs to the question.
  struct Turns {
    const char *question, *more, *answer;
  };

  template <typename... Args>
  [[noreturn]] void fail(const Args&... args) const;
  void find_shape(const nlohmann::json& value);
  Shape shape_of(const nlohmann::json& value) const;
  [[noreturn]] void fail_unknown(const nlohmann::json& object) const;
  const std::string& text_of(const nlohmann::json& object, const char* key) const;
  std::string optional_text(const nlohmann::json& object, const char* key) const;

  TokenSequence read_ids(const nlohmann::json& value) const;
  TokenSequence read_completion(const nlohmann::json& object);
  TokenSequence read_turns(const nlohmann::json& object);
  TokenSequence read_chat(const nlohmann::json& object);
  Json ordered(const nlohmann::json& object) const;
  void require_small_objects(const nlohmann::json& value) const;
  // line: "messages", and what a template is given with them.
  TokenSequence render(Json line);
  bool has_template();

  static const Turns kTurns[];
  const TextSource& source_;
  const Records& records_;
  const Record* record_ = nullptr;  // that is being read
  Shape shape_ = Shape::none;
  std::string key_;               // that has the value; of turns, the question's
  const Turns* turns_ = nullptr;  // of Shape::turns and completion
  std::optional<ChatTemplate> template_;
  bool looked_for_template_ = false;
};

}  // namespace gptq
