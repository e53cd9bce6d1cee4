#include "plan/settings.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"

namespace gptq {
namespace {

// Reads a JSON object of scalars in order. The JSON library silently keeps the last of equal keys; this refuses them.
class SettingReader : public nlohmann::json_sax<Json> {
 public:
  SettingReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}
  std::vector<Setting> take() { return std::move(settings_); }

  bool start_object(size_t /*size*/) override {
    if (opened_) throw nested();
    return opened_ = true;
  }
  bool start_array(size_t /*size*/) override { throw opened_ ? nested() : no_object(); }
  bool end_object() override { return true; }
  bool end_array() override { return true; }
  bool key(std::string& name) override {
    if (!keys_.insert(name).second) throw InputError(cat(where_, ": the entry '", name, "' appears twice; keep one"));
    settings_.push_back({name, nullptr});
    return true;
  }
  bool null() override { return take_value(nullptr); }
  bool boolean(bool value) override { return take_value(value); }
  bool number_integer(int64_t value) override { return take_value(value); }
  bool number_unsigned(uint64_t value) override { return take_value(value); }
  bool number_float(double value, const std::string& /*text*/) override { return take_value(value); }
  bool string(std::string& value) override { return take_value(value); }
  bool binary(Json::binary_t& /*value*/) override { return false; }
  bool parse_error(size_t position, const std::string& /*token*/, const nlohmann::json::exception& /*error*/) override {
    const std::string_view seen = text_.substr(0, position);
    throw InputError(cat(where_, ": not valid JSON at line ", std::count(seen.begin(), seen.end(), '\n') + 1,
                         ", column ", seen.size() - (seen.rfind('\n') + 1)));
  }

 private:
  InputError no_object() const { return InputError(cat(where_, ": not a JSON object, which begins with {")); }
  InputError nested() const {
    return InputError(cat(where_, ": the entry '", settings_.empty() ? "" : settings_.back().key,
                          "' holds an object or a list where one value was expected"));
  }
  bool take_value(Json value) {
    if (!opened_) throw no_object();
    settings_.back().value = std::move(value);
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  bool opened_ = false;
  std::unordered_set<std::string> keys_;
  std::vector<Setting> settings_;
};

}  // namespace

std::vector<Setting> read_settings(std::string_view text, const std::string& where) {
  SettingReader reader(text, where);
  Json::sax_parse(text, &reader);
  std::vector<Setting> settings = reader.take();
  if (settings.empty()) throw InputError(cat(where, ": the object is empty; give it at least one entry"));
  return settings;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r\n";
  const size_t first = text.find_first_not_of(spaces);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(spaces) - first + 1);
}

}  // namespace gptq
