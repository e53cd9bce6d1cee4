#include "data/jinja/template.h"

#include <limits>

#include <nlohmann/json.hpp>

#include "data/jinja/collections.h"
#include "data/jinja/interpreter.h"
#include "data/jinja/parser.h"

namespace gptq::jinja {
namespace {

constexpr size_t kMostBytes = size_t{512} << 10;  // of a template; real ones have up to some tens of thousands

// The bytes of a JSON text, about.
size_t size_of(const Json& json) {
  size_t bytes = 8;
  if (json.is_string()) bytes += json.get_ref<const std::string&>().size();
  if (json.is_structured())
    for (const auto& [key, value] : json.items()) bytes += (json.is_object() ? key.size() : 0) + size_of(value);
  return bytes;
}

Value value_of(Memory& memory, const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > std::numeric_limits<int64_t>::max())
        refuse("the integer ", json.get<uint64_t>(), ", larger than 63 bits,");
      return json.get<int64_t>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return Text{json.get_ref<const std::string&>()};
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(value_of(memory, item));
      return memory.list(std::move(items));
    }
    case Json::value_t::object: {
      Dict* dict = memory.dict();
      for (const auto& [key, value] : json.get_ref<const Json::object_t&>())
        insert(memory, *dict, Text{key}, value_of(memory, value));
      return dict;
    }
    default:
      return None{};
  }
}

}  // namespace

struct Template::Program {
  Body body;
};

Template::Template(std::string_view source) {
  if (source.size() > kMostBytes)
    refuse("a template of more than ", kMostBytes, " bytes (this one has ", source.size(), ")");
  program_ = std::make_unique<const Program>(Program{parse(source)});
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;

std::string Template::render(const Json& variables, const Date& now) const {
  Memory memory(size_of(variables));
  Scope* globals = memory.scope(nullptr);
  add_globals(memory, *globals, now);
  for (const auto& [name, value] : variables.get_ref<const Json::object_t&>())
    set_variable(memory, *globals, name, value_of(memory, value));
  Interpreter interpreter(memory);
  try {
    return interpreter.run(program_->body, memory.scope(globals));
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(cat("line ", interpreter.line(), ": ", error.what()));
  } catch (const InputError& error) {
    throw InputError(cat("line ", interpreter.line(), ": ", error.what()));
  }
}

}  // namespace gptq::jinja
