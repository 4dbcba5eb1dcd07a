#pragma once
// oneDNN's matmul primitives, made once per problem (extents, strides, type) and kept in the backend.

#include <plumb/backends/onednn/compat.hpp>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace onednn::detail {

/// One array of a matmul: extent 1 where it broadcasts over the batch, strides where an extent is 1 as a dense array has them.
struct matmul_array {
  index_t extents[4] = {};
  index_t strides[4] = {};
};

/// What distinguishes one primitive from another; compared as bytes.
struct matmul_problem {
  std::int64_t type = 0, rank = 0;
  matmul_array a, b, c;

  std::uint64_t hash() const {
    std::int64_t words[sizeof(matmul_problem) / sizeof(std::int64_t)];
    std::memcpy(words, this, sizeof words);
    std::uint64_t h = 0x9E3779B97F4A7C15u;
    for (const std::int64_t w : words) {
      h = (h ^ static_cast<std::uint64_t>(w)) * 0xD6E8FEB86659FD93u;
      h ^= h >> 32;
    }
    return h;
  }
  friend bool operator==(const matmul_problem& x, const matmul_problem& y) { return std::memcmp(&x, &y, sizeof x) == 0; }
};
static_assert(sizeof(matmul_problem) == 26 * sizeof(std::int64_t), "no padding: it is compared as bytes");

/// What may follow the product: a factor given at run time, and the values that were in `c`.
struct matmul_variant {
  bool scale, add;
  int index() const { return (scale ? 1 : 0) + (add ? 2 : 0); }
};

/// The primitives of one problem, each described and made when it is first asked for.
class matmul {
 public:
  matmul(const char* operation, const matmul_problem& problem, dnnl_engine_t engine) : problem_(problem), engine_(engine) {
    const arrays m(operation, problem);
    a_ = compat::empty_memory(operation, m.a.get(), engine);
    b_ = compat::empty_memory(operation, m.b.get(), engine);
    c_ = compat::empty_memory(operation, m.c.get(), engine);
    factor_ = compat::empty_memory(operation, m.factor.get(), engine);
  }

  const matmul_problem& problem() const { return problem_; }
  bool available(const char* operation, matmul_variant v) { return static_cast<bool>(described(operation, v).desc); }
  /// Scratchpad that the variant wants.
  std::size_t bytes(const char* operation, matmul_variant v) { return described(operation, v).bytes; }

  /// `c = alpha a b (+ c)`. Where oneDNN runs primitives later, waits for this one: our own loops, which come next, run at once.
  void run(const char* operation, dnnl_stream_t stream, float alpha, const void* a, const void* b, bool add, float* c,
           void* scratchpad) {
    const matmul_variant v{alpha != 1.0f, add};
    part& p = described(operation, v);
    if (!p.primitive)
      compat::require_success(operation, "primitive_create", dnnl_primitive_create(p.primitive.out(), p.desc.get()));
    dnnl_exec_arg_t arguments[5];
    int count = 0;
    const auto pass = [&](int name, const compat::memory& m, const void* data) {
      compat::require_success(operation, "memory_set_data_handle",
                              dnnl_memory_set_data_handle(m.get(), const_cast<void*>(data)));
      arguments[count++] = {name, m.get()};
    };
    pass(DNNL_ARG_SRC, a_, a);
    pass(DNNL_ARG_WEIGHTS, b_, b);
    pass(DNNL_ARG_DST, c_, c);
    if (p.bytes > 0) pass(DNNL_ARG_SCRATCHPAD, p.scratchpad, scratchpad);
    if (v.scale) pass(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, factor_, &alpha);
    compat::require_success(operation, "primitive_execute",
                            dnnl_primitive_execute(p.primitive.get(), stream, count, arguments));
    if (!at_once_) compat::require_success(operation, "stream_wait", dnnl_stream_wait(stream));
  }

 private:
  struct part {
    compat::primitive_desc desc;
    compat::primitive primitive;
    compat::memory scratchpad;
    std::size_t bytes = 0;
    bool described = false;
  };
  struct arrays {
    compat::memory_desc a, b, c, factor;
    arrays(const char* operation, const matmul_problem& p)
        : a(of(operation, p.type, p.rank, p.a)), b(of(operation, p.type, p.rank, p.b)),
          c(of(operation, dnnl_f32, p.rank, p.c)), factor(of(operation, dnnl_f32, p.rank, {{1, 1, 1, 1}, {1, 1, 1, 1}})) {}
    static compat::memory_desc of(const char* operation, std::int64_t type, std::int64_t rank, const matmul_array& x) {
      return {operation, static_cast<dnnl_data_type_t>(type), static_cast<int>(rank), x.extents, x.strides};
    }
  };

  part& described(const char* operation, matmul_variant v) {
    part& p = parts_[v.index()];
    if (p.described) return p;
    const arrays m(operation, problem_);
    auto desc = compat::describe_matmul(operation, engine_, m.a, m.b, m.c, v.scale ? &m.factor : nullptr, v.add);
    // The reference implementation is hundreds of times slower than any other way.
    if (desc && std::string_view(compat::implementation(desc)).substr(0, 3) != "ref") {
      p.bytes = dnnl_memory_desc_get_size(compat::scratchpad_desc(desc));
      p.scratchpad = compat::empty_memory(operation, compat::scratchpad_desc(desc), engine_);
      p.desc = std::move(desc);
    }
    p.described = true;
    return p;
  }

  matmul_problem problem_;
  dnnl_engine_t engine_;
  bool at_once_ = compat::executes_at_once();
  part parts_[4];
  compat::memory a_, b_, c_, factor_;
};

/// The latest `capacity` problems used.
class matmul_cache {
 public:
  static constexpr std::size_t capacity = 512;

  matmul& find(const char* operation, const matmul_problem& problem, dnnl_engine_t engine) {
    const std::uint64_t h = problem.hash();
    for (std::size_t i = 0; i < hashes_.size(); ++i)
      if (hashes_[i] == h && matmuls_[i].problem() == problem) return used(i);
    if (matmuls_.size() < capacity) {
      matmuls_.emplace_back(operation, problem, engine);
      hashes_.push_back(h);
      last_use_.push_back(0);
      return used(matmuls_.size() - 1);
    }
    const auto i = static_cast<std::size_t>(std::min_element(last_use_.begin(), last_use_.end()) - last_use_.begin());
    matmuls_[i] = matmul(operation, problem, engine);
    hashes_[i] = h;
    return used(i);
  }
  bool holds(const matmul_problem& problem) const {
    for (const matmul& m : matmuls_)
      if (m.problem() == problem) return true;
    return false;
  }
  std::size_t size() const { return matmuls_.size(); }

 private:
  matmul& used(std::size_t i) {
    last_use_[i] = ++uses_;
    return matmuls_[i];
  }
  std::vector<std::uint64_t> hashes_, last_use_;
  std::vector<matmul> matmuls_;
  std::uint64_t uses_ = 0;
};

}  // namespace onednn::detail

PLUMB_NAMESPACE_END
