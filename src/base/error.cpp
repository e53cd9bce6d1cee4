#include "base/error.h"

#include <utility>

namespace gptq {
namespace {

// "`sym=false` with ..." -> "sym"
std::string leading_option(const std::string& text) {
  if (!text.starts_with('`')) return {};
  const size_t end = text.find_first_of("=`", 1);
  return end == text.npos ? std::string() : text.substr(1, end - 1);
}

std::shared_ptr<const ErrorSubject> completed(const std::string& text, ErrorSubject subject) {
  if (subject.option.empty()) subject.option = leading_option(text);
  return std::make_shared<const ErrorSubject>(std::move(subject));
}

}  // namespace

Error::Error(const std::string& text, ErrorSubject subject)
    : std::runtime_error(text), subject_(completed(text, std::move(subject))) {}

}  // namespace gptq
