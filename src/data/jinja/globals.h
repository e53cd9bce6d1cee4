// The functions that every chat template has.
#pragma once

#include "data/jinja/memory.h"

namespace gptq::jinja {

// What strftime_now() takes for now.
struct Date {
  int year = 2024, month = 7, day = 26, hour = 0, minute = 0, second = 0;
};

// range, dict, namespace, cycler, joiner, raise_exception and strftime_now.
void add_globals(Memory& memory, Scope& scope, const Date& now);

}  // namespace gptq::jinja
