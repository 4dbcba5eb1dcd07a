// Products at the shapes of an output head and of a small transformer, beside the bare oneDNN primitive of the same problem.

#include "support/backends.hpp"
#include "support/peer.hpp"

namespace {

using namespace plumb_bench;
using plumb::index_t;

struct product {
  const char* name;
  index_t batch, heads, m, n, k;
  bool a_transposed, b_transposed, heads_between_tokens;
  float alpha, beta;
};

/// `[batch, heads, rows, columns]`; heads may lie between the tokens, as a projection writes them.
template <class T>
plumb::view<T, 4> operand(T* p, const product& g, index_t rows, index_t columns, bool transposed, bool between) {
  plumb::view<T, 4> v(p, g.batch, g.heads, transposed ? columns : rows, transposed ? rows : columns);
  if (between) {
    v.strides[1] = v.extents[3];
    v.strides[2] = g.heads * v.extents[3];
  }
  return transposed ? v.transposed() : v;
}

#if __has_include(<plumb/backends/onednn.hpp>)
template <class S>
double bare_primitive(const product& g, const plumb::view<const S, 4>& a, const plumb::view<const S, 4>& b,
                      const plumb::view<float, 4>& c) {
  namespace compat = plumb::onednn::compat;
  const char* op = "bench";
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl_data_type_t type = std::is_same_v<S, plumb::bf16> ? dnnl_bf16 : dnnl_f32;
  // A lone matrix is told as one.
  const int skip = g.batch * g.heads == 1 ? 2 : 0;
  const compat::memory_desc da(op, type, 4 - skip, a.extents + skip, a.strides + skip),
      db(op, type, 4 - skip, b.extents + skip, b.strides + skip), dc(op, dnnl_f32, 4 - skip, c.extents + skip, c.strides + skip);
  const auto pd = compat::describe_matmul(op, engine.get(), da, db, dc, nullptr, g.beta != 0);
  if (!pd) return 0;
  compat::primitive p;
  compat::require_success(op, "primitive_create", dnnl_primitive_create(p.out(), pd.get()));
  std::vector<char> scratch(dnnl_memory_desc_get_size(compat::scratchpad_desc(pd)) + 1);
  std::vector<compat::memory> memories;
  std::vector<dnnl_exec_arg_t> arguments;
  const auto pass = [&](int name, compat::memory_desc::handle desc, const void* data) {
    memories.push_back(compat::empty_memory(op, desc, engine.get()));
    dnnl_memory_set_data_handle(memories.back().get(), const_cast<void*>(data));
    arguments.push_back({name, memories.back().get()});
  };
  pass(DNNL_ARG_SRC, da.get(), a.pointer);
  pass(DNNL_ARG_WEIGHTS, db.get(), b.pointer);
  pass(DNNL_ARG_DST, dc.get(), c.pointer);
  if (scratch.size() > 1) pass(DNNL_ARG_SCRATCHPAD, compat::scratchpad_desc(pd), scratch.data());
  return seconds([&] {
    dnnl_primitive_execute(p.get(), stream.get(), static_cast<int>(arguments.size()), arguments.data());
  });
}
#endif

template <class Row, class S>
void gemm(benchmark::State& state, const product& g) {
  Row row;
  using real = plumb::real_of<decltype(row.backend)>;
  const auto groups = g.batch * g.heads;
  const auto a = random_values<S>(static_cast<std::size_t>(groups * g.m * g.k)), b = random_values<S>(static_cast<std::size_t>(groups * g.k * g.n));
  std::vector<real> c(static_cast<std::size_t>(groups * g.m * g.n));
  const auto va = operand(a.data(), g, g.m, g.k, g.a_transposed, g.heads_between_tokens);
  const auto vb = operand(b.data(), g, g.k, g.n, g.b_transposed, g.heads_between_tokens);
  const auto vc = operand(c.data(), g, g.m, g.n, false, false);
  std::vector<char> memory(row.backend.gemm_workspace(va, vb, vc) + 64);
  plumb::arena<> scratch(memory);
  for (auto _ : state) row.backend.gemm(scratch, real(g.alpha), va, vb, real(g.beta), vc);
  count(state, "flop/s", 2.0 * static_cast<double>(groups * g.m * g.n) * static_cast<double>(g.k));
#if __has_include(<plumb/backends/onednn.hpp>)
  if constexpr (std::is_same_v<real, float> && !std::is_same_v<S, plumb::f16>) {
    const double peer = bare_primitive<S>(g, va, vb, vc);
    if (peer > 0) compare(state, "bare oneDNN", peer);
  }
#endif
}

constexpr product products[] = {
    {"head_logits", 1, 1, 512, 32000, 1024, false, true, false, 1, 0},
    {"head_d_hidden", 1, 1, 512, 1024, 32000, false, false, false, 1, 0},
    {"head_d_head_adding", 1, 1, 32000, 1024, 512, true, false, false, 1, 1},
    {"linear", 1, 1, 64, 96, 96, false, true, false, 1, 0},
    {"linear", 1, 1, 1280, 256, 256, false, true, false, 1, 0},
    {"linear", 1, 1, 1536, 128, 128, false, true, false, 1, 0},
    {"linear_d_weight_adding", 1, 1, 128, 128, 1536, true, false, false, 1, 1},
    {"decode", 1, 1, 1, 128, 128, false, true, false, 1, 0},
    {"attention_scores", 32, 4, 48, 48, 32, false, true, true, 0.17677669f, 0},
    {"attention_values", 32, 4, 48, 32, 48, false, false, false, 1, 0},
};

// A training step's products of 301 to 478 rows, another number each time, with a head [128, 96]: forward, and the two of the gradient. Beside
// it, always 400 rows. What differs is the making of primitives.
template <class Row>
void changing_rows(benchmark::State& state, bool changing) {
  constexpr plumb::index_t most = 478, v = 128, d = 96;
  Row row;
  using real = plumb::real_of<decltype(row.backend)>;
  const auto hidden = random_values<real>(most * d), head = random_values<real>(v * d);
  std::vector<real> logits(most * v), d_hidden(most * d), d_head(v * d);
  std::vector<char> memory(1 << 22);
  plumb::arena<> scratch(memory);
  const plumb::view<const real, 2> w(head.data(), v, d);
  plumb::index_t steps = 0;
  for (auto _ : state) {
    const plumb::index_t n = changing ? 301 + steps++ * 37 % 178 : 400;
    const plumb::view<const real, 2> h(hidden.data(), n, d);
    const plumb::view<real, 2> u(logits.data(), n, v);
    row.backend.gemm(scratch, real(1), h, w.transposed(), real(0), u);
    row.backend.gemm(scratch, real(1), plumb::as_const(u), w, real(0), plumb::view<real, 2>(d_hidden.data(), n, d));
    row.backend.gemm(scratch, real(1), plumb::as_const(u).transposed(), h, real(1), plumb::view<real, 2>(d_head.data(), v, d));
  }
}

const int registered = [] {
  for_each_backend([]<class Row>(std::type_identity<Row>) {
    for (const bool changing : {true, false})
      benchmark::RegisterBenchmark((std::string("gemm/three_products/") + (changing ? "301..478" : "400") + "x128x96/" + Row::name()).c_str(),
                                   [changing](benchmark::State& s) { changing_rows<Row>(s, changing); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond)
          ->MinTime(0.1);
    for (const product& g : products) {
      const auto add = [&]<class S>(S) {
        const std::string shape = (g.batch * g.heads > 1 ? std::to_string(g.batch) + "x" + std::to_string(g.heads) + "x" : "") +
                                  std::to_string(g.m) + "x" + std::to_string(g.n) + "x" + std::to_string(g.k);
        benchmark::RegisterBenchmark(("gemm/" + std::string(g.name) + "/" + shape + "/" + plumb::dtype_name<S>() + "/" + Row::name()).c_str(),
                                     [g](benchmark::State& s) { gemm<Row, S>(s, g); })
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond)
            ->MinTime(0.1);
      };
      const bool is_onednn = Row::name() == "onednn";
      if (!is_onednn && g.m * g.n * g.k > 1 << 27) continue;  // seconds a call
      if constexpr (std::is_same_v<Row, serial_row>) add(float{});
      if (is_onednn || Row::name() == "xtensor") {
        add(plumb::real_of<decltype(Row::backend)>{});
        if (is_onednn) add(plumb::bf16{});
      }
    }
  });
  return 0;
}();

}  // namespace
