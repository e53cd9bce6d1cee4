// Cuts the text of a file into records, one after the other, without parsing more of it than their ends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace gptq {

struct Record {
  std::string_view text;  // JSON, or a row of a table
  size_t start = 0;       // its place in the file, in bytes
  int64_t number = 0;     // from 1; of a line, all lines counted
};

class Records {
 public:
  virtual ~Records() = default;
  // The next record that is not blank; false at the end. Throws InputError, which starts with the file, where none
  // ends.
  virtual bool next(Record& record) = 0;
  // A record's value: of a row an object of texts.
  virtual nlohmann::json parse(const Record& record) const;
  // "FILE, line 3".
  std::string place_of(const Record& record) const;
  // What a message on a broken record says in addition, with a semicolon in front.
  virtual std::string hint() const { return ""; }

 protected:
  Records(std::string name, std::string unit) : name_(std::move(name)), unit_(std::move(unit)) {}
  template <typename... Args>
  [[noreturn]] void fail(const Record& record, const Args&... args) const;

 private:
  std::string name_, unit_;  // unit: "line", "element" or "row"
};

// The records of a file's text, which must outlive them. `extension` is that of the file; of a JSON file the text tells
// whether it has lines, an array, or values of several lines. Null if the file is one text.
std::unique_ptr<Records> open_records(std::string_view text, const std::string& name, const std::string& extension);

}  // namespace gptq
