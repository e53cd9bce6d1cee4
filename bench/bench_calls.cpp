// The overhead of Backend::run(op) over a virtual function per op: nanoseconds per call of ops that do nothing.
//   bench_calls
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/op_table.h"

namespace gptq {
namespace {

int64_t calls = 0;

// One virtual function per op, with the operands as arguments.
class Virtuals {
 public:
  virtual ~Virtuals() = default;
  virtual void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) = 0;
  virtual void add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) = 0;
  virtual void pack(ConstMatrixView codes, int bits, MatrixView words) = 0;
};
class EmptyVirtuals final : public Virtuals {
 public:
  void linear(ConstMatrixView x, ConstMatrixView /*w*/, ConstMatrixView /*bias*/, MatrixView /*y*/) override {
    calls += x.rows;
  }
  void add_gram(ConstMatrixView x, MatrixView /*h*/, MatrixView /*dropped*/) override { calls += x.rows; }
  void pack(ConstMatrixView codes, int /*bits*/, MatrixView /*words*/) override { calls += codes.rows; }
};

class EmptyBackend final : public Backend {
 public:
  EmptyBackend();
  std::string name() const override { return "empty"; }
  std::string description() const override { return "ops that do nothing"; }
  DType compute_dtype(DType stored) const override { return stored; }
  void wait() override {}
  MemoryUse memory_use() const override { return {}; }
  void* allocate(size_t /*bytes*/) override { return nullptr; }
  void release(void* /*block*/, size_t /*bytes*/) noexcept override {}
  void compute(const ops::OpRef& op) override {
    if (!table_.run(*this, op)) fall_back(op);
  }

 private:
  void copy_in(MatrixView /*to*/, const void* /*from*/) override {}
  void copy_out(void* /*to*/, ConstMatrixView /*from*/) override {}

  OpTable<EmptyBackend> table_;
};
void linear(EmptyBackend& /*backend*/, const ops::Linear& op) { calls += op.x.rows; }
void add_gram(EmptyBackend& /*backend*/, const ops::AddGram& op) { calls += op.x.rows; }
void pack(EmptyBackend& /*backend*/, const ops::Pack& op) { calls += op.codes.rows; }
EmptyBackend::EmptyBackend() {
  table_.add<linear>();
  table_.add<add_gram>();
  table_.add<pack>();
}

// The median of 9 rounds, in nanoseconds per call.
template <typename Body>
double nanoseconds(const Body& body) {
  constexpr int kRounds = 9, kCalls = 2'000'000;
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; ++i) body();
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    rounds.push_back(taken.count() / kCalls);
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

// Hides from the compiler which class it is.
template <typename T>
T& hidden(T& object) {
  T* volatile pointer = &object;
  return *pointer;
}

void measure() {
  const auto virtuals = std::make_unique<EmptyVirtuals>();
  const auto backend = std::make_unique<EmptyBackend>();
  Virtuals& before = hidden<Virtuals>(*virtuals);
  Backend& after = hidden<Backend>(*backend);
  const MatrixView x(nullptr, DType::bf16, 1, 64), w = x, y = x;
  const auto print = [](const char* name, double virtual_call, double run) {
    std::printf("%-10s %6.2f ns as a virtual function, %6.2f ns as run(op)\n", name, virtual_call, run);
  };
  print("linear", nanoseconds([&] { before.linear(x, w, {}, y); }),
        nanoseconds([&] { after.run(ops::Linear{.x = x, .w = w, .y = y}); }));
  print("add_gram", nanoseconds([&] { before.add_gram(x, w, y); }),
        nanoseconds([&] { after.run(ops::AddGram{.x = x, .h = w, .dropped = y}); }));
  print("pack", nanoseconds([&] { before.pack(x, 4, y); }),
        nanoseconds([&] { after.run(ops::Pack{.codes = x, .bits = 4, .words = y}); }));
}

}  // namespace
}  // namespace gptq

int main() {
  gptq::measure();
  return gptq::calls > 0 ? 0 : 1;
}
