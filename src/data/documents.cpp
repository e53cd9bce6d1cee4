#include "data/documents.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "data/message.h"
#include "io/json.h"

namespace gptq {

using nlohmann::json;

// Alpaca; Dolly; what swift and MetaMath have; GSM8K; NuminaMath.
const DocumentReader::Turns DocumentReader::kTurns[] = {
    {"instruction", "input", "output"},
    {"instruction", "context", "response"},
    {"instruction", "input", "response"},
    {"prompt", "", "response"},
    {"query", "", "response"},
    {"question", "", "answer"},
    {"problem", "", "solution"},
};

namespace {

constexpr const char* kKnownKeys =
    "\"text\", \"messages\" and \"input_ids\", or \"conversations\", \"prompt\" with \"completion\" or \"response\", "
    "\"instruction\" with \"output\", or \"question\" with \"answer\"";

// Roles of ShareGPT and of what writes such files, as chat templates name them.
constexpr std::pair<std::string_view, std::string_view> kRoles[] = {
    {"human", "user"},          {"user", "user"},     {"gpt", "assistant"},   {"chatgpt", "assistant"},
    {"assistant", "assistant"}, {"bot", "assistant"}, {"model", "assistant"}, {"bing", "assistant"},
    {"bard", "assistant"},      {"system", "system"}, {"tool", "tool"},       {"observation", "tool"},
};

bool is_id(const json& value) {
  constexpr uint64_t kLargest = std::numeric_limits<int32_t>::max();
  return value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= kLargest) &&
         value.get<int64_t>() >= 0;
}

bool has(const json& object, const char* key) { return *key != '\0' && object.contains(key); }

Json message_of(std::string_view role, const std::string& content) { return {{"role", role}, {"content", content}}; }

}  // namespace

template <typename... Args>
void DocumentReader::fail(const Args&... args) const {
  throw InputError(cat(records_.place_of(*record_), ": ", args...));
}

TokenSequence DocumentReader::read(const Record& record) {
  record_ = &record;
  json value = records_.parse(record);
  if (value.is_array()) value = json{{"input_ids", std::move(value)}};
  if (value.is_string()) value = json{{"text", std::move(value)}};
  if (!value.is_object()) fail("found ", value.type_name(), " where an object was expected");
  if (shape_ == Shape::none) find_shape(value);
  if (!value.contains(key_))
    fail("\"", excerpt(key_), "\" is missing, which the ones before have; a file holds one kind of record");
  switch (shape_) {
    case Shape::ids:
      return read_ids(value.at(key_));
    case Shape::messages:
    case Shape::conversations:
      return read_chat(value);
    case Shape::turns:
      return read_turns(value);
    case Shape::completion:
      return read_completion(value);
    default:
      return source_.tokenizer().encode(text_of(value, key_.c_str()));
  }
}

void DocumentReader::find_shape(const json& object) {
  key_ = source_.key;
  if (!key_.empty()) {
    if (!object.contains(key_)) fail_unknown(object);
    shape_ = shape_of(object.at(key_));
    return;
  }
  constexpr std::pair<const char*, Shape> kShapes[] = {{"input_ids", Shape::ids},
                                                       {"text", Shape::text},
                                                       {"messages", Shape::messages},
                                                       {"conversations", Shape::conversations}};
  for (const auto& [key, shape] : kShapes) {
    if (!object.contains(key)) continue;
    key_ = key, shape_ = shape;
    return;
  }
  static constexpr Turns kCompletion = {"prompt", "", "completion"};
  const auto fits = [&](const Turns& turns) { return has(object, turns.question) && has(object, turns.answer); };
  const auto found = std::find_if(std::begin(kTurns), std::end(kTurns), fits);
  turns_ = fits(kCompletion) ? &kCompletion : found != std::end(kTurns) ? found : nullptr;
  if (turns_ == nullptr) fail_unknown(object);
  key_ = turns_->question;
  shape_ = turns_ == &kCompletion ? Shape::completion : Shape::turns;
}

// What a key that the user names holds.
DocumentReader::Shape DocumentReader::shape_of(const json& value) const {
  if (value.is_string()) return Shape::text;
  if (value.is_array() && !value.empty()) {
    if (value.front().is_object()) return value.front().contains("from") ? Shape::conversations : Shape::messages;
    if (value.front().is_number() || value.front().is_array()) return Shape::ids;
  }
  fail("\"", excerpt(key_), "\" is ", value.type_name(), " where a text, token ids or messages were expected");
}

void DocumentReader::fail_unknown(const json& object) const {
  constexpr size_t kMost = 12;
  std::string keys;
  size_t count = 0;
  for (const auto& [key, value] : object.items()) {
    if (++count > kMost) break;
    keys += cat(keys.empty() ? "" : ", ", '"', excerpt(key), '"');
  }
  if (count == 0) keys = "none";
  if (count > kMost) keys += ", ...";
  if (!source_.key.empty())
    fail("has no \"", excerpt(source_.key), "\" (`", source_.key_option, "`); its keys are ", keys);
  fail("found none of the keys ", kKnownKeys, "; its keys are ", keys, ": name the one to read with `",
       source_.key_option, "`");
}

const std::string& DocumentReader::text_of(const json& object, const char* key) const {
  const auto found = object.find(key);
  if (found == object.end()) fail("\"", excerpt(key), "\" is missing");
  if (!found->is_string()) fail("\"", excerpt(key), "\" is ", found->type_name(), " where a string was expected");
  return found->get_ref<const std::string&>();
}

// The text under a key; empty if there is none.
std::string DocumentReader::optional_text(const json& object, const char* key) const {
  return has(object, key) && !object.at(key).is_null() ? text_of(object, key) : "";
}

// An array of ids; or, as tokenizers return a text, an array with one.
TokenSequence DocumentReader::read_ids(const json& value) const {
  const std::string key = excerpt(key_);
  const bool is_batch = value.is_array() && !value.empty() && value.front().is_array();
  if (is_batch && value.size() > 1)
    fail("\"", key, "\" holds ", value.size(), " arrays where one was expected; write each as a record of its own");
  const json& row = is_batch ? value.front() : value;
  if (!row.is_array() || row.empty()) fail("\"", key, "\" is not an array of at least one token id");
  TokenSequence ids;
  ids.reserve(row.size());
  for (const json& id : row) {
    if (!is_id(id))
      fail("found ", excerpt_of(id), " in \"", key, "\" where a token id (an integer from 0 on) was expected");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// A prompt that its completion continues (TRL): both texts, or both lists of messages.
TokenSequence DocumentReader::read_completion(const json& object) {
  const char *prompt = turns_->question, *completion = turns_->answer;
  if (!object.at(prompt).is_array())
    return source_.tokenizer().encode(text_of(object, prompt) + text_of(object, completion));
  Json line = ordered(object);
  if (!line.contains(completion) || !line.at(completion).is_array())
    fail("\"", prompt, "\" holds messages, and \"", completion, "\" does not");
  Json messages = std::move(line.at(prompt));
  for (Json& message : line.at(completion)) messages.push_back(std::move(message));
  line["messages"] = std::move(messages);
  return render(std::move(line));
}

// A turn of the user and one of the assistant; without a chat template under the headings of Alpaca.
TokenSequence DocumentReader::read_turns(const json& object) {
  std::string question = text_of(object, turns_->question);
  const std::string more = optional_text(object, turns_->more), &answer = text_of(object, turns_->answer);
  if (!has_template()) {
    const std::string input = more.empty() ? "" : cat("### Input:\n", more, "\n\n");
    return source_.tokenizer().encode(cat("### Instruction:\n", question, "\n\n", input, "### Response:\n", answer));
  }
  Json messages = Json::array();
  if (const std::string system = optional_text(object, "system"); !system.empty())
    messages.push_back(message_of("system", system));
  if (!more.empty()) question += "\n" + more;
  messages.push_back(message_of("user", question));
  messages.push_back(message_of("assistant", answer));
  return render({{"messages", std::move(messages)}});
}

// "messages" as they are; ShareGPT's {"from", "value"} as {"role", "content"}.
TokenSequence DocumentReader::read_chat(const json& object) {
  const json& turns = object.at(key_);
  if (!turns.is_array() || turns.empty()) fail("\"", excerpt(key_), "\" is not an array of at least one message");
  Json line = ordered(object);
  if (shape_ == Shape::messages || !turns.front().is_object() || !turns.front().contains("from")) {
    line["messages"] = Json(line.at(key_));
    return render(std::move(line));
  }
  Json messages = Json::array();
  if (const std::string system = optional_text(object, "system"); !system.empty())
    messages.push_back(message_of("system", system));
  for (const json& turn : turns) {
    if (!turn.is_object()) fail("\"", excerpt(key_), "\" holds ", excerpt_of(turn), " where an object was expected");
    const std::string& from = text_of(turn, "from");
    const auto role =
        std::find_if(std::begin(kRoles), std::end(kRoles), [&](const auto& r) { return r.first == from; });
    if (role == std::end(kRoles)) {
      fail("a turn is from \"", excerpt(from), "\" where human, gpt, system or tool was expected; write the chat as ",
           "\"messages\" with \"role\" and \"content\"");
    }
    messages.push_back(message_of(role->second, text_of(turn, "value")));
  }
  line["messages"] = std::move(messages);
  return render(std::move(line));
}

// The record again, with its keys in order, which templates show.
Json DocumentReader::ordered(const json& object) const {
  require_small_objects(object);
  return Json::parse(record_->text);
}

// Keys in order take a time that grows with the square of their number.
void DocumentReader::require_small_objects(const json& value) const {
  constexpr size_t kMostKeys = 1000;
  if (value.is_object() && value.size() > kMostKeys) fail("an object has more than ", kMostKeys, " keys");
  if (value.is_structured())
    for (const json& inner : value) require_small_objects(inner);
}

bool DocumentReader::has_template() {
  if (!looked_for_template_ && ChatTemplate::exists(source_.tokenizer().folder()))
    template_.emplace(source_.tokenizer().folder());
  looked_for_template_ = true;
  return template_.has_value();
}

TokenSequence DocumentReader::render(Json line) {
  if (!template_) template_.emplace(source_.tokenizer().folder());
  const auto take = [&](const char* key) { return line.contains(key) ? std::move(line.at(key)) : Json(); };
  Chat chat{.messages = take("messages"),
            .tools = take("tools"),
            .documents = take("documents"),
            .variables = take("chat_template_kwargs")};
  try {
    return source_.tokenizer().encode(template_->render(std::move(chat)), false);
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(cat(records_.place_of(*record_), ": ", error.what()));
  } catch (const InputError& error) {
    fail(error.what());
  }
}

}  // namespace gptq
