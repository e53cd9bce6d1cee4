// Python's arithmetic.
#include <algorithm>
#include <cmath>
#include <limits>

#include "data/jinja/format.h"
#include "data/jinja/memory.h"
#include "data/jinja/operators.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

// A bool, an integer or a float.
struct Number {
  bool is_whole = false;
  int64_t whole = 0;
  double number = 0;
};

std::optional<Number> number_in(const Value& value) {
  if (const bool* truth = std::get_if<bool>(&value)) return Number{true, *truth ? 1 : 0, *truth ? 1.0 : 0.0};
  if (const int64_t* whole = std::get_if<int64_t>(&value)) return Number{true, *whole, static_cast<double>(*whole)};
  if (const double* number = std::get_if<double>(&value)) return Number{false, 0, *number};
  return std::nullopt;
}

[[noreturn]] void fail_large() { fail("an integer is larger than the 64 bits that are supported"); }

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent % 2 != 0 && __builtin_mul_overflow(result, base, &result)) fail_large();
    exponent /= 2;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_large();
  }
  return result;
}

// The quotient towards minus infinity.
int64_t floor_quotient(int64_t left, int64_t right) {
  if (right == -1 && left == std::numeric_limits<int64_t>::min()) fail_large();
  const int64_t quotient = left / right;
  return quotient - (left % right != 0 && (left < 0) != (right < 0) ? 1 : 0);
}

Value calculate_whole(std::string_view sign, int64_t left, int64_t right) {
  int64_t result = 0;
  if (sign == "+" || sign == "-" || sign == "*") {
    const bool overflows = sign == "+"   ? __builtin_add_overflow(left, right, &result)
                           : sign == "-" ? __builtin_sub_overflow(left, right, &result)
                                         : __builtin_mul_overflow(left, right, &result);
    if (overflows) fail_large();
    return result;
  }
  if (sign == "**") return power(left, right);
  if (sign == "//") return floor_quotient(left, right);
  return right == -1 ? int64_t{0} : left - floor_quotient(left, right) * right;
}

double modulo(double left, double right) {
  double rest = std::fmod(left, right);
  if (rest != 0 && (rest < 0) != (right < 0)) rest += right;
  return rest == 0 ? std::copysign(0.0, right) : rest;
}

Value calculate_numbers(std::string_view sign, const Number& left, const Number& right) {
  const bool divides = sign == "/" || sign == "//" || sign == "%";
  if (divides && right.number == 0) fail("a division by zero");
  const bool is_whole = left.is_whole && right.is_whole && sign != "/" && !(sign == "**" && right.whole < 0);
  if (is_whole) return calculate_whole(sign, left.whole, right.whole);
  if (sign == "+") return left.number + right.number;
  if (sign == "-") return left.number - right.number;
  if (sign == "*") return left.number * right.number;
  if (sign == "/") return left.number / right.number;
  if (sign == "//") return (left.number - modulo(left.number, right.number)) / right.number;
  if (sign == "%") return modulo(left.number, right.number);
  if (left.number == 0 && right.number < 0) fail("a division by zero");
  const double result = std::pow(left.number, right.number);
  if (std::isnan(result) || std::isinf(result)) fail("the result of ** is not a number, or too large");
  return result;
}

Value add_texts(Memory& memory, const Text& left, const Text& right) {
  const bool markup = left.markup || right.markup;
  const auto part = [&](const Text& text) {
    return markup && !text.markup ? escape_html(text.bytes) : std::string(text.bytes);
  };
  memory.require(left.bytes.size() + right.bytes.size());
  return memory.text(part(left) + part(right), markup);
}

Value add_lists(Memory& memory, const List& left, const List& right) {
  memory.require((left.items.size() + right.items.size()) * sizeof(Value));
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return memory.list(std::move(items), left.shape);
}

bool is_sequence(const List* list) {
  return list != nullptr && (list->shape == List::Shape::kList || list->shape == List::Shape::kTuple);
}

// A text or list so many times.
std::optional<Value> repeat(Memory& memory, const Value& value, const Value& count) {
  const auto number = number_in(count);
  if (!number || !number->is_whole) return std::nullopt;
  const auto times = static_cast<size_t>(std::max<int64_t>(number->whole, 0));
  const auto check = [&](size_t bytes) {
    constexpr size_t kMost = std::numeric_limits<int64_t>::max();
    memory.require(bytes != 0 && times > kMost / bytes ? kMost : bytes * times);
  };
  if (const Text* text = text_in(value)) {
    check(text->bytes.size());
    std::string made;
    if (!text->bytes.empty())
      for (size_t i = 0; i < times; ++i) made += text->bytes;
    return memory.text(std::move(made), text->markup);
  }
  if (const List* list = list_in(value); is_sequence(list)) {
    check(list->items.size() * sizeof(Value));
    std::vector<Value> made;
    if (!list->items.empty())
      for (size_t i = 0; i < times; ++i) made.insert(made.end(), list->items.begin(), list->items.end());
    return memory.list(std::move(made), list->shape);
  }
  return std::nullopt;
}

}  // namespace

Value calculate(Memory& memory, std::string_view sign, const Value& left, const Value& right) {
  const Text* text = text_in(left);
  if (sign == "%" && text != nullptr) return memory.text(format_percent(memory, *text, right));
  for (const Value* side : {&left, &right})
    if (const Missing* missing = std::get_if<Missing>(side)) fail_missing(*missing);
  if (const auto a = number_in(left), b = number_in(right); a && b) return calculate_numbers(sign, *a, *b);
  if (const Text* other = text_in(right); sign == "+" && text != nullptr && other != nullptr)
    return add_texts(memory, *text, *other);
  if (const List* a = list_in(left), *b = list_in(right);
      sign == "+" && is_sequence(a) && is_sequence(b) && a->shape == b->shape)
    return add_lists(memory, *a, *b);
  if (sign == "*")
    for (const auto& repeated : {repeat(memory, left, right), repeat(memory, right, left)})
      if (repeated) return *repeated;
  fail("a ", type_of(left), " and a ", type_of(right), " cannot be combined by ", sign);
}

Value negative(const Value& value) {
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  const auto number = number_in(value);
  if (!number) fail("a ", type_of(value), " has no negative");
  if (!number->is_whole) return -number->number;
  if (number->whole == std::numeric_limits<int64_t>::min()) fail_large();
  return -number->whole;
}

}  // namespace gptq::jinja
