#include "run/states.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// A file that disappears when it is closed.
Descriptor open_nameless(const fs::path& folder) {
  if (Descriptor file(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)); file) return file;
  const fs::path path = folder / cat("gptq-states-", getpid());  // a file system without O_TMPFILE
  Descriptor file(open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!file) throw option_error("spill_dir", " ", cannot(folder, "create a file in it", errno).what());
  unlink(path.c_str());
  return file;
}

// Runs a file operation; its errors name the option that set the folder.
template <typename Body>
void naming_the_option(Body body) {
  try {
    body();
  } catch (const InputError& error) {
    throw option_error("spill_dir", " ", error.what());
  }
}

}  // namespace

StateStore::StateStore(const fs::path& spill_folder, int64_t tokens, int64_t residual_bytes, int64_t input_bytes,
                       Memory& host)
    : place_(StatePlace::spill),
      host_(&host),
      spill_folder_(spill_folder),
      tokens_(tokens),
      residual_bytes_(residual_bytes),
      input_bytes_(input_bytes),
      spill_bytes_(tokens * (residual_bytes + input_bytes)) {
  file_ = open_nameless(spill_folder);
  int error = 0;
  do {
    error = posix_fallocate(*file_, 0, static_cast<off_t>(std::max<int64_t>(spill_bytes_, 1)));
  } while (error == EINTR);
  if (error != 0) {
    const std::optional<uint64_t> room = free_bytes(spill_folder);
    throw option_error("spill_dir", " ", spill_folder.string(), ": the states need ", spill_bytes_, " bytes (",
                       std::strerror(error), ")", room ? cat(", and its disk has ", *room, " free") : "",
                       ": choose another folder, or fewer `samples`");
  }
  worker_.emplace();
}

void StateStore::add(Batch batch, Backend& backend) {
  Stored stored{.first_token = first_free_};
  first_free_ += batch.tokens();
  if (place_ == StatePlace::device) {
    stored.backend = &backend;
  } else {
    stored.residual = to_host(std::move(batch.residual), backend);
    if (place_ == StatePlace::spill) write_behind(stored.residual, residual_offset(stored));
  }
  stored.batch = std::move(batch);
  batches_.push_back(std::move(stored));
}

StateStore::Waiting StateStore::to_host(Matrix matrix, Backend& backend) {
  Waiting waiting{matrix.dtype(), matrix.rows(), matrix.cols(), {}};
  if (matrix.empty()) return waiting;
  waiting.host = Matrix(*host_, matrix.dtype(), matrix.rows(), matrix.cols());
  backend.download(waiting.host.view().data, matrix);
  bytes_moved_ += static_cast<int64_t>(matrix.bytes());
  return waiting;
}

Matrix StateStore::to_backend(Waiting& waiting, Backend& backend) {
  if (waiting.bytes() == 0) return {};
  bytes_moved_ += static_cast<int64_t>(waiting.bytes());
  return to_device(backend, waiting.dtype, waiting.rows, waiting.cols, waiting.host.view().data);
}

void StateStore::move(Stored& stored, Backend& to) {
  for (Matrix* matrix : {&stored.batch.residual, &stored.batch.input}) {
    Waiting waiting = to_host(std::move(*matrix), *stored.backend);
    *matrix = to_backend(waiting, to);
  }
  stored.backend = &to;
}

Batch& StateStore::at(int64_t index, Backend& backend) {
  Stored& stored = batches_[static_cast<size_t>(index)];
  if (stored.backend != &backend) move(stored, backend);
  return stored.batch;
}

void StateStore::visit_elsewhere(Stored& stored, Backend& backend, StateUse use,
                                 const std::function<void(Batch&)>& visit) {
  if (stored.read.valid()) stored.read.get();
  Batch& batch = stored.batch;
  if (use.reads_residual) batch.residual = to_backend(stored.residual, backend);
  if (use.reads_input) batch.input = to_backend(stored.input, backend);
  stored.input = {};
  visit(batch);
  if (!keeps_inputs_) batch.input = Matrix();
  if (use.writes_residual) stored.residual = to_host(std::move(batch.residual), backend);
  batch.residual = Matrix();
  stored.input = to_host(std::move(batch.input), backend);
  batch.input = Matrix();
  if (place_ != StatePlace::spill) return;
  if (use.writes_residual) write_behind(stored.residual, residual_offset(stored));
  stored.residual.host = Matrix();
  write_behind(stored.input, input_offset(stored));
}

void StateStore::read_ahead(Stored& stored, StateUse use) {
  stored.read = worker_->submit([this, &stored, use] {
    const auto fetch = [&](Waiting& waiting, size_t offset) {
      if (waiting.bytes() == 0) return;
      waiting.host = Matrix(*host_, waiting.dtype, waiting.rows, waiting.cols);
      naming_the_option([&] { read_all(*file_, spill_folder_, waiting.host.view().data, waiting.bytes(), offset); });
    };
    if (use.reads_residual) fetch(stored.residual, residual_offset(stored));
    if (use.reads_input) fetch(stored.input, input_offset(stored));
  });
}

// At most one write is pending, so at most one matrix waits in memory.
void StateStore::write_behind(Waiting& waiting, size_t offset) {
  if (written_.valid()) written_.get();
  if (waiting.bytes() == 0) return;
  // Shared because a task must be copyable, which Matrix is not.
  auto host = std::make_shared<Matrix>(std::move(waiting.host));
  written_ = worker_->submit([this, host, offset] {
    naming_the_option([&] { write_all(*file_, spill_folder_, host->view().data, host->bytes(), offset); });
  });
}

void StateStore::visit(int64_t index, Backend& backend, StateUse use, const std::function<void(Batch&)>& visit) {
  if (place_ == StatePlace::device) {
    Batch& batch = at(index, backend);
    visit(batch);
    if (!keeps_inputs_) batch.input = Matrix();
    return;
  }
  const auto i = static_cast<size_t>(index);
  if (place_ == StatePlace::spill) {
    if (!batches_[i].read.valid()) read_ahead(batches_[i], use);
    if (i + 1 < batches_.size()) read_ahead(batches_[i + 1], use);
  }
  visit_elsewhere(batches_[i], backend, use, visit);
}

void StateStore::for_each(Backend& backend, StateUse use, const std::function<void(Batch&)>& visit_batch) {
  for (int64_t i = 0; i < batches(); ++i) visit(i, backend, use, visit_batch);
}

}  // namespace gptq
