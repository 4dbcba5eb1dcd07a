#include "run.hpp"

#include <plumb/backends/onednn.hpp>

namespace lab {

void run_on_onednn(const settings& s) {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  plumb::onednn::backend compute{engine, stream};
  const dnnl_version_t* v = dnnl_version();
  run_seeds(compute, s, "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch) + " " + v->hash + "; ");
}

}  // namespace lab
