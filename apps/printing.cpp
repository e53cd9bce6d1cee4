#include "printing.h"

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace gptq {
namespace {

std::atomic<bool> used = false;

unsigned char byte_at(std::string_view text, size_t i) {
  return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
}

// Bytes of the UTF-8 character at the start of `text` (RFC 3629), with its value; 0 if there is none.
size_t character_at(std::string_view text, uint32_t& value) {
  const unsigned char lead = byte_at(text, 0);
  if (lead < 0x80) {
    value = lead;
    return 1;
  }
  const size_t size = lead >= 0xc2 && lead < 0xe0 ? 2 : (lead & 0xf0) == 0xe0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
  if (size == 0) return 0;
  value = lead & (0xffU >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte_at(text, i) & 0xc0) != 0x80) return 0;
    value = value << 6 | (byte_at(text, i) & 0x3fU);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = value >= 0xd800 && value < 0xe000;
  return value < kLeast[size] || value > 0x10ffff || is_surrogate ? 0 : size;
}

// C0, DEL and C1, which terminals obey.
bool is_control(uint32_t character) { return character < 0x20 || (character >= 0x7f && character < 0xa0); }

[[noreturn]] void stdout_failed(int error) {
  throw StdoutError(std::string("cannot write to stdout (") + std::strerror(error) + ")");
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    uint32_t character = 0;
    const size_t known = character_at(text, character), size = known == 0 ? 1 : known;
    if (known != 0 && !is_control(character)) {
      result += text.substr(0, size);
    } else {
      for (size_t i = 0; i < size; ++i) result += vformatted("\\x%02x", byte_at(text, i));
    }
    text.remove_prefix(size);
  }
  return result;
}

std::string printable_json(std::string_view json) {
  std::string result;
  result.reserve(json.size());
  while (!json.empty()) {
    uint32_t character = 0;
    const size_t known = character_at(json, character), size = known == 0 ? 1 : known;
    if (known == 0)
      result += "\\ufffd";
    else if (is_control(character) && character != '\n')
      result += vformatted("\\u%04x", character);
    else
      result += json.substr(0, size);
    json.remove_prefix(size);
  }
  return result;
}

std::string text_of(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string vformatted(const char* format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int size = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string text(size > 0 ? static_cast<size_t>(size) : 0, '\0');
  std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

void write_stdout(std::string_view text) {
  used = true;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) stdout_failed(errno);
}

void print_json(std::string_view json) { write_stdout(printable_json(json) + "\n"); }

bool stdout_is_open() {
  const int flags = fcntl(STDOUT_FILENO, F_GETFL);
  return flags != -1 && (flags & O_ACCMODE) != O_RDONLY;
}

void require_stdout() {
  if (!stdout_is_open()) stdout_failed(EBADF);
}

bool stdout_is_used() { return used; }

void finish_stdout() {
  if (std::fflush(stdout) != 0) stdout_failed(errno);
  if (std::ferror(stdout) != 0) stdout_failed(EIO);
}

void tell(std::string_view line) {
  const std::string text = printable(line) + "\n";
  std::fputs(text.c_str(), stderr);
}

}  // namespace gptq
