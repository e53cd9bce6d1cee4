// Calls of OpenBLAS from many threads, with the buffers that it needs.
#pragma once

namespace gptq::cpu {

// Reserves buffers for as many calls at a time as the system has address space for, `calls` at most, and leaves
// OpenBLAS without threads of its own: they would split sums differently on each machine.
void prepare_blas(int calls);

// Around each call. OpenBLAS maps a buffer of 128 MB of address space for every call at a time, keeps it, and tries for
// ever where the system refuses. So calls wait for one of the buffers that are there.
class BlasCall {
 public:
  BlasCall();  // throws OutOfMemory, with the numbers, where there is no buffer at all
  ~BlasCall();
  BlasCall(const BlasCall&) = delete;
  BlasCall& operator=(const BlasCall&) = delete;
};

}  // namespace gptq::cpu
