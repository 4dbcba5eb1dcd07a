#pragma once
// oneDNN's matmul primitives, made once per problem (extents, strides, type) and kept in the backend.

#include <plumb/backends/onednn/compat.hpp>

#include <cstring>
#include <string_view>
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

/// The primitives of one problem.
class matmul {
 public:
  matmul(const char* operation, const matmul_problem& problem, dnnl_engine_t engine) : problem_(problem) {
    const auto type = static_cast<dnnl_data_type_t>(problem.type);
    const int rank = static_cast<int>(problem.rank);
    constexpr index_t ones[4] = {1, 1, 1, 1};
    const compat::memory_desc a(operation, type, rank, problem.a.extents, problem.a.strides),
        b(operation, type, rank, problem.b.extents, problem.b.strides),
        c(operation, dnnl_f32, rank, problem.c.extents, problem.c.strides),
        factor(operation, dnnl_f32, rank, ones, ones);
    for (const bool scale : {false, true})
      for (const bool add : {false, true}) {
        part& p = parts_[matmul_variant{scale, add}.index()];
        p.desc = compat::describe_matmul(operation, engine, a, b, c, scale ? &factor : nullptr, add);
        // The reference implementation is hundreds of times slower than any other way.
        if (!p.desc || std::string_view(compat::implementation(p.desc)).substr(0, 3) == "ref") {
          p.desc = {};
          continue;
        }
        p.bytes = dnnl_memory_desc_get_size(compat::scratchpad_desc(p.desc));
        p.scratchpad = compat::empty_memory(operation, compat::scratchpad_desc(p.desc), engine);
        if (p.bytes > bytes_) bytes_ = p.bytes;
      }
    a_ = compat::empty_memory(operation, a.get(), engine);
    b_ = compat::empty_memory(operation, b.get(), engine);
    c_ = compat::empty_memory(operation, c.get(), engine);
    factor_ = compat::empty_memory(operation, factor.get(), engine);
  }

  const matmul_problem& problem() const { return problem_; }
  bool available(matmul_variant v) const { return static_cast<bool>(parts_[v.index()].desc); }
  bool complete() const { return available({false, false}) && available({true, false}) && available({false, true}) && available({true, true}); }
  /// Scratchpad of the variant that wants most.
  std::size_t bytes() const { return bytes_; }

  /// `c = alpha a b (+ c)`. Where oneDNN runs primitives later, waits for this one: our own loops, which come next, run at once.
  void run(const char* operation, dnnl_stream_t stream, float alpha, const void* a, const void* b, bool add, float* c,
           void* scratchpad) {
    const matmul_variant v{alpha != 1.0f, add};
    part& p = parts_[v.index()];
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
  };
  matmul_problem problem_;
  bool at_once_ = compat::executes_at_once();
  part parts_[4];
  compat::memory a_, b_, c_, factor_;
  std::size_t bytes_ = 0;
};

/// The problems seen so far, at most `capacity`; then the oldest makes room.
class matmul_cache {
 public:
  static constexpr std::size_t capacity = 512;

  matmul& find(const char* operation, const matmul_problem& problem, dnnl_engine_t engine) {
    const std::uint64_t h = problem.hash();
    for (std::size_t i = 0; i < hashes_.size(); ++i)
      if (hashes_[i] == h && matmuls_[i].problem() == problem) return matmuls_[i];
    if (matmuls_.size() < capacity) {
      matmuls_.emplace_back(operation, problem, engine);
      hashes_.push_back(h);
      return matmuls_.back();
    }
    const std::size_t i = oldest_++ % capacity;
    matmuls_[i] = matmul(operation, problem, engine);
    hashes_[i] = h;
    return matmuls_[i];
  }
  std::size_t size() const { return matmuls_.size(); }

 private:
  std::vector<std::uint64_t> hashes_;
  std::vector<matmul> matmuls_;
  std::size_t oldest_ = 0;
};

}  // namespace onednn::detail

PLUMB_NAMESPACE_END
