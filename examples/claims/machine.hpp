#pragma once
// The lab's backend for runs side by side: oneDNN where it is there, a backend of its own and one thread for each run.

#include "lab/settings.hpp"

#if LAB_HAS_ONEDNN
#include <plumb/backends/onednn.hpp>
#else
#include <plumb/backends/serial.hpp>
#endif

#include <dlfcn.h>

namespace claims {

class machine {
 public:
#if LAB_HAS_ONEDNN
  using backend = plumb::onednn::backend;
  static constexpr const char* name = "onednn";
#else
  using backend = plumb::serial::backend<float>;
  static constexpr const char* name = "serial, float";
#endif

  machine() {
    using set_threads = void (*)(int);
    if (void* const f = dlsym(RTLD_DEFAULT, "omp_set_num_threads")) reinterpret_cast<set_threads>(f)(1);
  }
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;
  backend& compute() { return compute_; }

 private:
#if LAB_HAS_ONEDNN
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  backend compute_{engine_, stream_};
#else
  backend compute_{};
#endif
};

}  // namespace claims
