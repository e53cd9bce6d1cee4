#include "data/tokenizer/values.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"

namespace gptq {
namespace {

using nlohmann::json;

// The steps of a part, those of sequences in sequences included. The depth of all JSON files is limited.
size_t steps_of(const json& description, const char* list) {
  if (!description.is_object()) return 1;
  const auto steps = description.find(list);
  if (steps == description.end()) return 1;
  size_t count = 1;
  for (const json& step : *steps) count += steps_of(step, list);
  return count;
}

}  // namespace

int32_t token_id_of(const json& value, std::string_view what, std::string_view name) {
  constexpr int64_t kLargest = int64_t{1} << 30;
  const int64_t id = count_of(value, kLargest);
  if (id >= 0) return static_cast<int32_t>(id);
  const std::string quoted = name.empty() ? "" : cat(" \"", excerpt(name), "\"");
  throw InputError(
      cat(what, quoted, " has the id ", excerpt_of(value), " where an integer from 0 to ", kLargest, " was expected"));
}

int64_t count_of(const json& value, int64_t most) {
  if (!value.is_number_integer()) return -1;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most)) return -1;
  const auto count = value.get<int64_t>();
  return count > most ? -1 : std::max<int64_t>(count, -1);
}

std::string character_of(const json& value, std::string_view what) {
  const auto* text = value.get_ptr<const std::string*>();
  size_t end = 0;
  if (text != nullptr && !text->empty()) next_character(*text, end);
  if (text == nullptr || text->empty() || end != text->size())
    throw InputError(cat(what, " is ", excerpt_of(value), " where one character was expected"));
  return *text;
}

void require_few_steps(const json& description, std::string_view part, const char* list) {
  constexpr size_t kMost = 64;
  if (const size_t count = steps_of(description, list); count > kMost)
    throw InputError(cat("the ", part, " has ", count, " steps where at most ", kMost, " were expected"));
}

}  // namespace gptq
