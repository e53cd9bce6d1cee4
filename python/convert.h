// Values of the C++ API as Python objects, and back. To be called with the GIL.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>

#include "gptq/gptq.h"

namespace gptq::python {

namespace nb = nanobind;

using Options = std::vector<std::pair<std::string, OptionValue>>;

// bool, int, float and str; throws nb::type_error for other values.
Options options_of(const nb::dict& values);

nb::list to_python(const std::vector<OptionInfo>& options);
nb::dict to_python(const Progress& progress);
nb::dict to_python(const Perplexity& perplexity);
nb::dict to_python(const Comparison& comparison);
nb::dict to_python(const Inspection& inspection);
nb::dict to_python(const DeviceSummary& device);
nb::dict to_python(const LoaderVerdict& verdict);
nb::dict to_python(const Inspection::Module& module);
nb::dict to_python(const Comparison::Position& position);

template <typename Value>
nb::list list_of(const std::vector<Value>& values) {
  nb::list list;
  for (const Value& value : values) list.append(to_python(value));
  return list;
}

// Options in a message as Python has them: `sym=false` -> sym=False, `desc_act` -> desc_act.
std::string with_keywords(const std::string& text);

// Sets Python's error to the class of gptq_cpp.errors that stands for this exception; rethrows one that is none of the
// library's.
void set_python_error(const std::exception_ptr& failure, void* /*unused*/);

}  // namespace gptq::python
