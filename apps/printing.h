// What the program prints: results on stdout, sentences on stderr. Names from files reach both here only, where nothing
// in them can act on a terminal, and a result that stdout does not take ends the program with an error.
#pragma once

#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include <nlohmann/json_fwd.hpp>

#include "gptq/error.h"

namespace gptq {

// Results cannot be printed: "cannot write to stdout (No space left on device)".
class StdoutError : public Error {
 public:
  using Error::Error;
};

// The text with control characters, and bytes that are no UTF-8, spelled out: "\x1b".
std::string printable(std::string_view text);

// The same for JSON, where they can only be inside strings: "\u009b".
std::string printable_json(std::string_view json);
// Bytes that are no UTF-8 become replacement characters.
std::string text_of(const nlohmann::ordered_json& json, int indent = 2);

// As std::sprintf has it.
std::string vformatted(const char* format, ...);

// The same with strings of any type as arguments, which are made printable; the format itself is not touched.
template <typename... Args>
std::string formatted(const char* format, const Args&... args) {
  [[maybe_unused]] const auto held = [](const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string_view>)
      return printable(value);
    else
      return value;
  };
  [[maybe_unused]] const auto passed = [](const auto& value) {
    if constexpr (std::is_same_v<decltype(value), const std::string&>)
      return value.c_str();
    else
      return value;
  };
  return std::apply([&](const auto&... values) { return vformatted(format, passed(values)...); },
                    std::make_tuple(held(args)...));
}

// To stdout, as it is. Throws StdoutError.
void write_stdout(std::string_view text);

template <typename... Args>
void print(const char* format, const Args&... args) {
  write_stdout(formatted(format, args...));
}
void print_json(std::string_view json);  // with an end of line

// Throws StdoutError if nobody has opened stdout, so that nothing is computed in vain.
void require_stdout();
bool stdout_is_open();
// Whether something has been printed there.
bool stdout_is_used();
// Throws StdoutError if anything printed has been lost.
void finish_stdout();

// A line on stderr. One that is lost ends nothing.
void tell(std::string_view line);

}  // namespace gptq
