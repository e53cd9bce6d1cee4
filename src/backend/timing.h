// How long ops take on a device: measured by calls with operands made for the purpose.
#pragma once

#include "backend/backend.h"

namespace gptq {

// Runs the op that `call` is the key of for `patience` seconds, but at least twice; the shortest time, in seconds.
double time_op(Backend& backend, const OpCall& call, double patience);

// Seconds to move a byte between staging memory and the device, the mean of both directions.
double time_transfers(Backend& backend);

}  // namespace gptq
