// The registry: every operation on every backend at every element type, made by Boost.Hana from three lists. Prints the table of
// what is native, fused or composed, and checks that each entry really runs.
#include "support/catch.hpp"

#include <plumb/plumb.hpp>
#if __has_include(<plumb/backends/xtensor.hpp>)
#include <plumb/backends/xtensor.hpp>
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
#include <plumb/backends/onednn.hpp>
#endif

#include <boost/hana/at.hpp>
#include <boost/hana/cartesian_product.hpp>
#include <boost/hana/filter.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/size.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>

#include <cstdio>
#include <string>
#include <vector>

namespace hana = boost::hana;
using namespace plumb;

namespace {

// One entry per backend: how to make it, what to call it.
template <class Real>
struct serial_entry {
  using backend = serial::backend<Real>;
  backend compute{};
  static std::string name() { return std::string("serial<") + dtype_name<Real>() + ">"; }
  template <class S>
  std::string gemm_path() { return std::is_same_v<S, Real> ? "native" : "converted on reading"; }
};
#if __has_include(<plumb/backends/xtensor.hpp>)
struct xtensor_entry {
  using backend = xtensor::backend;
  backend compute{};
  static std::string name() { return "xtensor"; }
  template <class S>
  std::string gemm_path() { return std::is_same_v<S, double> ? "native" : "converted on reading"; }
};
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
struct onednn_entry {
  using backend = onednn::backend;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  backend compute{engine, stream};
  static std::string name() { return "onednn"; }
  template <class S>
  std::string gemm_path() { return compute.template gemm_path<S>(); }
};
#endif

// One entry per operation: what the table says, and a call on an array of ones.
struct token_logp_operation {
  static constexpr const char* name = "token_logp";
  template <class S, class Entry>
  static std::string path(Entry&) { return declares<typename Entry::backend, cap::token_logp> ? "fused" : "composed"; }
  template <class S, class B>
  static double run(B& b) {
    using real = real_of<B>;
    std::vector<S> logits(6, S(1.0f));
    std::vector<std::int32_t> targets{0, 2};
    std::vector<real> logp(2);
    std::vector<unsigned char> memory(token_logp_workspace(b, 2, 3));
    plumb::arena scratch{memory};
    token_logp_inputs<S> in{.logits = view<const S, 2>(logits.data(), 2, 3), .targets = targets};
    token_logp(b, scratch, in, {}, {.logp = logp});
    b.sync();
    return static_cast<double>(logp[1]);
  }
  static constexpr double expected = -1.0986122886681098;  // log(1/3)
};
struct token_logp_backward_operation {
  static constexpr const char* name = "token_logp_backward";
  template <class S, class Entry>
  static std::string path(Entry&) { return declares<typename Entry::backend, cap::token_logp_grad> ? "fused" : "composed"; }
  template <class S, class B>
  static double run(B& b) {
    using real = real_of<B>;
    std::vector<S> logits(3, S(1.0f));
    std::vector<std::int32_t> targets{1};
    std::vector<real> lse{static_cast<real>(2.0986122886681098)}, d_logp{real(1)};
    std::vector<unsigned char> memory(token_logp_backward_workspace(b, 1));
    plumb::arena scratch{memory};
    token_logp_inputs<S> in{.logits = view<const S, 2>(logits.data(), 1, 3), .targets = targets};
    token_logp_backward(b, scratch, in, {}, {.log_sum_exp = lse, .d_logp = d_logp}, view<S, 2>(logits.data(), 1, 3));
    b.sync();
    return convert<double>(logits[0]);
  }
  static constexpr double expected = -1.0 / 3;
};
struct gae_operation {
  static constexpr const char* name = "gae";
  template <class S, class Entry>
  static std::string path(Entry&) { return declares<typename Entry::backend, cap::gae> ? "fused" : "composed"; }
  template <class S, class B>
  static double run(B& b) {
    using real = real_of<B>;
    const std::vector<real> ones(3, real(1));
    const std::vector<std::int32_t> cu{0, 3};
    std::vector<real> advantages(3);
    std::vector<unsigned char> memory(gae_workspace(b, 3));
    plumb::arena scratch{memory};
    gae(b, scratch, {.rewards = ones, .values = ones, .sequences = sequence_layout<>::packed(cu)}, {.gamma = 1, .lambda = 0.5},
        {.advantages = advantages});
    b.sync();
    return static_cast<double>(advantages[0]);
  }
  static constexpr double expected = 1.5;  // 1 + (1 + 0 / 2) / 2
};
struct ranks_operation {
  static constexpr const char* name = "ranks";
  template <class S, class Entry>
  static std::string path(Entry&) { return declares<typename Entry::backend, cap::ranks> ? "sorted" : "composed"; }
  template <class S, class B>
  static double run(B& b) {
    using real = real_of<B>;
    const std::vector<real> x(3, real(1));
    std::vector<real> ranks(3), matched(3);
    std::vector<unsigned char> memory(detail::ranks_workspace(b, 3));
    plumb::arena scratch{memory};
    detail::write_ranks(b, scratch, x, ranks);
    detail::match_ranks(b, scratch, ranks, ranks, ranks, matched);
    b.sync();
    return static_cast<double>(matched[2]);
  }
  static constexpr double expected = 2;
};
struct gemm_operation {
  static constexpr const char* name = "gemm";
  template <class S, class Entry>
  static std::string path(Entry& e) { return e.template gemm_path<S>(); }
  template <class S, class B>
  static double run(B& b) {
    using real = real_of<B>;
    std::vector<S> x(8, S(0.5f));
    std::vector<real> y(4);
    const view<const S, 2> a(x.data(), 2, 4), t(x.data(), 4, 2);
    const view<real, 2> c(y.data(), 2, 2);
    std::vector<unsigned char> memory(b.gemm_workspace(a, t, c) + 64);
    plumb::arena scratch{memory};
    b.gemm(scratch, real(1), a, t, real(0), c);
    b.sync();
    return static_cast<double>(y[3]);
  }
  static constexpr double expected = 1;
};

constexpr auto operations = hana::tuple_t<token_logp_operation, token_logp_backward_operation, gae_operation, ranks_operation, gemm_operation>;
constexpr auto dtypes = hana::tuple_t<double, float, bf16, f16>;
constexpr auto entries = hana::tuple_t<serial_entry<double>, serial_entry<float>
#if __has_include(<plumb/backends/xtensor.hpp>)
                                       ,
                                       xtensor_entry
#endif
#if __has_include(<plumb/backends/onednn.hpp>)
                                       ,
                                       onednn_entry
#endif
                                       >;

template <class Operation>  // the others take numbers of `real` only
inline constexpr bool takes_storage = !std::is_same_v<Operation, gae_operation> && !std::is_same_v<Operation, ranks_operation>;

constexpr auto supported = [](auto combination) {
  using operation = typename decltype(+hana::at_c<0>(combination))::type;
  using entry = typename decltype(+hana::at_c<1>(combination))::type;
  using dtype = typename decltype(+hana::at_c<2>(combination))::type;
  using compute = typename entry::backend;
  return hana::bool_c<std::is_same_v<dtype, real_of<compute>> || (takes_storage<operation> && storage_of<compute>::template contains<dtype>)>;
};

}  // namespace

TEST_CASE("every operation runs on every backend at every element type that it takes") {
  constexpr auto all = hana::cartesian_product(hana::make_tuple(operations, entries, dtypes));
  constexpr auto cases = hana::filter(all, supported);
  std::printf("%-22s %-16s %-8s %s\n", "operation", "backend", "dtype", "path");
  hana::for_each(cases, [](auto combination) {
    using operation = typename decltype(+hana::at_c<0>(combination))::type;
    using entry_type = typename decltype(+hana::at_c<1>(combination))::type;
    using dtype = typename decltype(+hana::at_c<2>(combination))::type;
    entry_type entry;
    std::printf("%-22s %-16s %-8s %s\n", operation::name, entry_type::name().c_str(), dtype_name<dtype>(),
                operation::template path<dtype>(entry).c_str());
    INFO(operation::name << " on " << entry_type::name() << " with " << dtype_name<dtype>());
    const double tolerance = is_storage_16<dtype> ? 2e-3 : 1e-6;
    const double found = operation::template run<dtype>(entry.compute);
    CHECK(found <= operation::expected + tolerance);
    CHECK(found >= operation::expected - tolerance);
  });
  std::printf("%zu combinations, %zu not taken\n", hana::size(cases).value,
              hana::size(all).value - hana::size(cases).value);
}
