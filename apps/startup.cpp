#include "startup.h"

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

namespace {

// OpenBLAS starts a thread for each core when it is loaded, before main(). Nothing uses them, and without address space
// for their buffers they spin for ever. It starts none where the process has one core, so it has one while libraries
// are loaded: functions in .preinit_array run before the constructors of all libraries, those of the program after.
cpu_set_t all_cores;
bool has_one_core = false;

__attribute__((no_sanitize("address", "thread", "undefined"))) void take_one_core(int /*count*/, char** /*arguments*/,
                                                                                  char** /*environment*/) {
  if (sched_getaffinity(0, sizeof all_cores, &all_cores) != 0) return;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &all_cores)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    has_one_core = sched_setaffinity(0, sizeof one, &one) == 0;
    return;
  }
}

__attribute__((section(".preinit_array"), used)) void (*const before_libraries)(int, char**, char**) = take_one_core;

__attribute__((constructor)) void give_back_cores() {
  if (has_one_core) sched_setaffinity(0, sizeof all_cores, &all_cores);
}

// Reading from what stands for stdin fails, and so does writing to what stands for the others.
void open_missing_descriptors() {
  for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; ++descriptor) {
    if (fcntl(descriptor, F_GETFD) != -1 || errno != EBADF) continue;
    if (open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) open("/", O_RDONLY | O_DIRECTORY);
  }
}

void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

namespace gptq {

void prepare_process() {
  open_missing_descriptors();
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  raise_file_limit();
#ifdef __GLIBC__
  // Freed blocks of a megabyte and more go back to the system at once, always: memory is what the plan says.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

}  // namespace gptq
