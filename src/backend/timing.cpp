#include "backend/timing.h"

#include <algorithm>
#include <cmath>

#include "backend/trial_operands.h"
#include "base/stopwatch.h"

namespace gptq {
namespace {

// The shortest time of body(), which is called for `patience` seconds but at least `least` times.
template <typename Body>
double shortest(Backend& backend, double patience, int least, const Body& body) {
  double best = INFINITY;
  const Stopwatch all;
  for (int i = 0; i < least || all.seconds() < patience; ++i) {
    backend.wait();
    const Stopwatch watch;
    body();
    backend.wait();
    best = std::min(best, watch.seconds());
  }
  return best;
}

}  // namespace

double time_op(Backend& backend, const OpCall& call, double patience) {
  double seconds = INFINITY;
  ops::visit_type(ops::index_of(call.op), [&](auto type) {
    DeviceOperands operands(backend);
    const auto op = decltype(type)::type::trial(operands, call.sizes, call.dtype);
    seconds = shortest(backend, patience, 2, [&] { backend.run(op); });
  });
  return seconds;
}

double time_transfers(Backend& backend) {
  constexpr int64_t kBytes = int64_t{32} << 20;
  Matrix host(backend.staging_memory(), DType::u8, 1, kBytes);
  Matrix device = to_device(backend, DType::u8, 1, kBytes, host.view().data);
  const double both = shortest(backend, 0, 3, [&] {
    backend.upload(device.view(), host.view().data);
    backend.wait();
    backend.download(host.view().data, device);
  });
  return both / (2 * static_cast<double>(kBytes));
}

}  // namespace gptq
