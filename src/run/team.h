// The devices that compute a block together; currently one.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace gptq {

struct Team {
  std::vector<Backend*> members;  // at least one; the first holds the block and its states
  Backend& lead() const { return *members.front(); }
};

}  // namespace gptq
