#include "gptq/version.h"

#define GPTQ_TEXT_OF(number) #number
#define GPTQ_TEXT(number) GPTQ_TEXT_OF(number)

namespace gptq {

std::string version() {
  return GPTQ_TEXT(GPTQ_VERSION_MAJOR) "." GPTQ_TEXT(GPTQ_VERSION_MINOR) "." GPTQ_TEXT(GPTQ_VERSION_PATCH);
}

}  // namespace gptq
