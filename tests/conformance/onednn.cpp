// The oneDNN backend against the conformance kit, with every width of vectors that this processor has.
#include <plumb/backends/onednn.hpp>
#include <plumb/testing/conformance.hpp>

int main() {
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const dnnl::stream stream{engine};
  int failed = 0;
  for (const auto isa : {plumb::onednn::isa::generic, plumb::onednn::isa::avx2, plumb::onednn::isa::avx512}) {
    plumb::onednn::backend compute{engine, stream};
    compute.limit(isa);
    std::printf("vectors up to %s, bf16 products: %s\n",
                isa == plumb::onednn::isa::generic ? "the baseline" : isa == plumb::onednn::isa::avx2 ? "AVX2" : "AVX-512",
                compute.gemm_path<plumb::bf16>());
    failed += plumb::testing::run_conformance(compute);
  }
  return failed;
}
