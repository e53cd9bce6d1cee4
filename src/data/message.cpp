#include "data/message.h"

#include <nlohmann/json.hpp>

namespace gptq {

std::string excerpt(std::string_view text) {
  constexpr size_t kLongest = 100;  // bytes
  if (text.size() <= kLongest) return std::string(text);
  size_t end = kLongest;
  while (end > kLongest - 4 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::string excerpt_of(const nlohmann::json& value) {
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return excerpt(std::string_view(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
}

std::string reason_of(const std::exception& error) {
  std::string_view text = error.what();
  if (const size_t number = text.find("] "); text.starts_with("[json.exception.") && number != text.npos)
    text.remove_prefix(number + 2);
  return excerpt(text);
}

}  // namespace gptq
