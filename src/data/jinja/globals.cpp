#include "data/jinja/globals.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <memory>
#include <string>

#include "data/jinja/arguments.h"
#include "data/jinja/collections.h"
#include "data/jinja/evaluator.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

Value range(Memory& memory, Arguments& arguments) {
  constexpr int64_t kMost = 100'000;  // as Jinja's sandbox has it
  int64_t start = 0, stop = arguments.integer("start");
  if (!arguments.positional.empty() && arguments.positional.size() > 1)
    start = std::exchange(stop, arguments.integer("stop"));
  const int64_t step = arguments.integer("step", 1);
  arguments.end();
  if (step == 0) fail("range() has a step of 0");
  std::vector<Value> items;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (items.size() == kMost) fail("range() has more than ", kMost, " numbers");
    memory.require(items.size() * sizeof(Value));
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return memory.list(std::move(items), List::Shape::kRange);
}

// dict(mapping or pairs, name=value, ...)
Dict* dict(Memory& memory, Arguments& arguments) {
  Dict* made = memory.dict();
  if (const auto from = arguments.take("")) {
    if (const Dict* given = dict_in(*from)) {
      for (const auto& [key, value] : given->entries) insert(memory, *made, key, value);
    } else {
      for (const Value& pair : iterate(memory, *from)) {
        const std::span<const Value> both = iterate(memory, pair);
        if (both.size() != 2) fail(arguments.function(), "() is made of something that is no pair");
        insert(memory, *made, both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) insert(memory, *made, Text{name}, value);
  arguments.named.clear();
  arguments.end();
  return made;
}

Value name_space(Memory& memory, Arguments& arguments) {
  Namespace* made = memory.name_space();
  for (const auto& [key, value] : dict(memory, arguments)->entries) {
    const Text* name = text_in(key);
    if (name == nullptr) continue;  // which no attribute can reach
    if (name->bytes.starts_with('_')) fail("a namespace has no attribute that starts with an underscore");
    memory.grow(sizeof(*made->attributes.begin()) + 64 + name->bytes.size());
    made->attributes.emplace(name->bytes, value);
  }
  return made;
}

// An object with the attributes current, next() and reset().
Value cycler(Memory& memory, Arguments& arguments) {
  const List* items = memory.list(arguments.take_rest());
  arguments.end();
  if (items->items.empty()) fail("cycler() has nothing to cycle through");
  Namespace* made = memory.name_space();
  const auto move_to = [made, items](size_t at) {
    made->attributes["current"] = items->items[at];
    return at;
  };
  move_to(0);
  const auto position = std::make_shared<size_t>(0);  // shared by both functions
  made->attributes["next"] = memory.callable("next", [made, items, position, move_to](Arguments& none) {
    none.end();
    const Value current = made->attributes["current"];
    *position = move_to((*position + 1) % items->items.size());
    return current;
  });
  made->attributes["reset"] = memory.callable("reset", [position, move_to](Arguments& none) -> Value {
    none.end();
    *position = move_to(0);
    return None{};
  });
  return made;
}

// A function that gives nothing the first time, and then always the separator.
Value joiner(Memory& memory, Arguments& arguments) {
  const Value separator = arguments.take("sep").value_or(Text{", "});
  arguments.end();
  return memory.callable("joiner", [separator, used = false](Arguments& none) mutable -> Value {
    none.end();
    return std::exchange(used, true) ? separator : Text{};
  });
}

constexpr std::array<const char*, 12> kMonths = {"January", "February", "March",     "April",   "May",      "June",
                                                 "July",    "August",   "September", "October", "November", "December"};
constexpr std::array<const char*, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                              "Thursday", "Friday", "Saturday"};

bool is_leap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

int day_of_year(const Date& date) {
  constexpr std::array<int, 12> kBefore = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  return kBefore[static_cast<size_t>(date.month - 1)] + date.day + (date.month > 2 && is_leap(date.year) ? 1 : 0);
}

// From 0, Sunday: the Gregorian calendar had a Monday on the first day of year 1.
int day_of_week(const Date& date) {
  const int years = date.year - 1;
  return (years * 365 + years / 4 - years / 100 + years / 400 + day_of_year(date)) % 7;
}

std::string padded(int value, int digits) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%0*d", digits, value);
  return text.data();
}

// What a letter of strftime() stands for, with at most `digits` digits; empty if it is none of a number.
std::string number_of(char letter, const Date& now, bool plain) {
  struct Field {
    char letter;
    int value, digits;
  };
  const Field fields[] = {{'Y', now.year, 4},        {'y', now.year % 100, 2}, {'m', now.month, 2},
                          {'d', now.day, 2},         {'H', now.hour, 2},       {'I', (now.hour + 11) % 12 + 1, 2},
                          {'M', now.minute, 2},      {'S', now.second, 2},     {'j', day_of_year(now), 3},
                          {'w', day_of_week(now), 1}};
  for (const Field& field : fields)
    if (field.letter == letter) return padded(field.value, plain ? 1 : field.digits);
  return "";
}

// strftime() with the letters that templates use; %-d and the like leave out leading zeros.
std::string formatted(std::string_view format, const Date& now) {
  const std::string month = kMonths[static_cast<size_t>(now.month - 1)];
  const std::string day = kDays[static_cast<size_t>(day_of_week(now))];
  const std::pair<char, std::string> words[] = {{'B', month},
                                                {'b', month.substr(0, 3)},
                                                {'A', day},
                                                {'a', day.substr(0, 3)},
                                                {'p', now.hour < 12 ? "AM" : "PM"},
                                                {'e', (now.day < 10 ? " " : "") + padded(now.day, 1)},
                                                {'%', "%"}};
  std::string made;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      made += format[i];
      continue;
    }
    const bool plain = i + 1 < format.size() && format[i + 1] == '-';
    i += plain ? 2 : 1;
    const char letter = i < format.size() ? format[i] : '\0';
    const auto* word =
        std::find_if(std::begin(words), std::end(words), [&](const auto& w) { return w.first == letter; });
    const std::string number = number_of(letter, now, plain);
    if (word == std::end(words) && number.empty()) refuse("the format \"", shown(format), "\" of strftime_now()");
    made += number.empty() ? word->second : number;
  }
  return made;
}

}  // namespace

void add_globals(Memory& memory, Scope& scope, const Date& now) {
  const auto add = [&](std::string_view name, std::function<Value(Arguments&)> call) {
    set_variable(memory, scope, name, memory.callable(name, std::move(call)));
  };
  add("range", [&memory](Arguments& arguments) { return range(memory, arguments); });
  add("dict", [&memory](Arguments& arguments) -> Value { return dict(memory, arguments); });
  add("namespace", [&memory](Arguments& arguments) { return name_space(memory, arguments); });
  add("cycler", [&memory](Arguments& arguments) { return cycler(memory, arguments); });
  add("joiner", [&memory](Arguments& arguments) { return joiner(memory, arguments); });
  add("lipsum", [](Arguments&) -> Value { refuse("the function lipsum()"); });
  add("raise_exception", [&memory](Arguments& arguments) -> Value {
    fail("it refuses the chat: ", shown(to_text(memory, arguments.required("message")).bytes));
  });
  add("strftime_now", [&memory, now](Arguments& arguments) -> Value {
    const std::string_view format = arguments.text("format");
    arguments.end();
    memory.require(16 * format.size());
    return memory.text(formatted(format, now));
  });
}

}  // namespace gptq::jinja
