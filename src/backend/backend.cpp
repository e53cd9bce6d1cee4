#include "backend/backend.h"

#include <deque>

namespace gptq {
namespace {

// Matrices of a device, brought to the host while an op is computed there.
class HostCopies {
 public:
  explicit HostCopies(Backend& backend) : backend_(backend) {}

  // Puts a host copy in the place of a view.
  template <typename View>
  void bring(View& view) {
    Matrix& copy = copies_.emplace_back(host_memory(), view.dtype, view.rows, view.cols);
    if (!view.empty()) backend_.download(copy.view().data, view);
    view = copy;
  }

 private:
  Backend& backend_;
  std::deque<Matrix> copies_;
};

template <typename Op>
ops::ResultOf<Op> compute_on_host(Backend& backend, const Op& op) {
  HostCopies copies(backend);
  Op on_device = op, on_host = op;
  for (ConstMatrixView* view : on_host.reads()) copies.bring(*view);
  for (MatrixView* view : on_host.writes()) copies.bring(*view);
  const auto send = [&] {
    const auto from = on_host.writes(), to = on_device.writes();
    for (size_t i = 0; i < to.size(); ++i) {
      if (!to[i]->empty()) backend.upload(*to[i], from[i]->data);
    }
  };
  if constexpr (std::is_void_v<ops::ResultOf<Op>>) {
    reference(on_host);
    send();
  } else {
    const ops::ResultOf<Op> result = reference(on_host);
    send();
    return result;
  }
}

}  // namespace

void Backend::fall_back(const ops::OpRef& op) {
  op.visit([&]<typename Op>(const Op& typed) -> ops::ResultOf<Op> {
    if constexpr (is_composed<Op>()) {
      typed.compose(*this);
    } else {
      ++fallbacks_[Op::kName];
      return compute_on_host(*this, typed);
    }
  });
}

void Backend::upload(MatrixView to, const void* from) {
  traffic_.uploaded += to.size() * static_cast<int64_t>(size_of(to.dtype));
  copy_in(to, from);
}

void Backend::download(void* to, ConstMatrixView from) {
  traffic_.downloaded += from.size() * static_cast<int64_t>(size_of(from.dtype));
  copy_out(to, from);
}

Matrix to_device(Backend& backend, DType dtype, int64_t rows, int64_t cols, const void* host) {
  Matrix matrix(backend, dtype, rows, cols);
  if (!matrix.empty()) backend.upload(matrix, host);
  return matrix;
}

Matrix copy_of(Backend& backend, ConstMatrixView from) {
  if (from.empty()) return {};
  Matrix copy(backend, from.dtype, from.rows, from.cols);
  backend.run(ops::Convert{.x = from, .y = copy});
  return copy;
}

Matrix zeros(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
  Matrix matrix(backend, dtype, rows, cols);
  backend.run(ops::Clear{.y = matrix});
  return matrix;
}

}  // namespace gptq
