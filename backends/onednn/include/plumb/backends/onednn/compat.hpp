#pragma once
// The part of oneDNN that the backend uses, in one shape for oneDNN 2.6 and 3.x: the only file that knows which one it is.
// By the C interface: it reports by status codes (right without exceptions too) and executes without building a map.

#include <plumb/core/error.hpp>

#include <oneapi/dnnl/dnnl.hpp>
#include <oneapi/dnnl/dnnl_debug.h>

#include <utility>

PLUMB_NAMESPACE_BEGIN

namespace onednn::compat {

/// Fails with the operation, oneDNN's call and its code.
inline void require_success(const char* operation, const char* call, dnnl_status_t status) {
  if (status != dnnl_success)
    fail_backend(message(operation) << "oneDNN's " << call << " answered " << dnnl_status2str(status) << " (code "
                                    << static_cast<int>(status) << ").",
                 static_cast<int>(status));
}

/// Owns one of oneDNN's objects; `Destroy` is its C function.
template <class Handle, dnnl_status_t (*Destroy)(Handle)>
class owner {
 public:
  owner() = default;
  owner(owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  owner& operator=(owner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~owner() {
    if (handle_ != nullptr) Destroy(handle_);
  }
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  Handle handle_ = nullptr;
};

/// How a primitive computes.
using attributes = owner<dnnl_primitive_attr_t, dnnl_primitive_attr_destroy>;
/// What a primitive does to its result.
using post_operations = owner<dnnl_post_ops_t, dnnl_post_ops_destroy>;
/// A problem, and the implementation chosen for it.
using primitive_desc = owner<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>;
/// What is executed.
using primitive = owner<dnnl_primitive_t, dnnl_primitive_destroy>;
/// An array as oneDNN sees it.
using memory = owner<dnnl_memory_t, dnnl_memory_destroy>;

/// A strided array's type, extents and strides.
class memory_desc {
 public:
#if DNNL_VERSION_MAJOR >= 3
  using handle = const_dnnl_memory_desc_t;
  memory_desc(const char* operation, dnnl_data_type_t type, int rank, const index_t* extents, const index_t* strides) {
    require_success(operation, "memory_desc_create",
                    dnnl_memory_desc_create_with_strides(desc_.out(), rank, extents, type, strides));
  }
  handle get() const { return desc_.get(); }

 private:
  owner<dnnl_memory_desc_t, dnnl_memory_desc_destroy> desc_;
#else
  using handle = const dnnl_memory_desc_t*;
  memory_desc(const char* operation, dnnl_data_type_t type, int rank, const index_t* extents, const index_t* strides) {
    require_success(operation, "memory_desc_init", dnnl_memory_desc_init_by_strides(&desc_, rank, extents, type, strides));
  }
  handle get() const { return &desc_; }

 private:
  dnnl_memory_desc_t desc_{};
#endif
};

/// A memory object without memory; `dnnl_memory_set_data_handle` gives it some at each call, and allocates nothing.
inline memory empty_memory(const char* operation, memory_desc::handle desc, dnnl_engine_t engine) {
  memory m;
  require_success(operation, "memory_create", dnnl_memory_create(m.out(), desc, engine, DNNL_MEMORY_NONE));
  return m;
}

/// Describes `c = scale a b + c`, scratchpad by the user; `scale` (one float given at run time) and `+ c` each on demand. Empty where
/// oneDNN has no such matmul on this processor.
inline primitive_desc describe_matmul(const char* operation, dnnl_engine_t engine, const memory_desc& a,
                                      const memory_desc& b, const memory_desc& c, const memory_desc* scale, bool add) {
  attributes attr;
  post_operations post;
  require_success(operation, "primitive_attr_create", dnnl_primitive_attr_create(attr.out()));
  require_success(operation, "set_scratchpad_mode",
                  dnnl_primitive_attr_set_scratchpad_mode(attr.get(), dnnl_scratchpad_mode_user));
  require_success(operation, "post_ops_create", dnnl_post_ops_create(post.out()));
  if (scale != nullptr)
    require_success(operation, "post_ops_append_binary",
                    dnnl_post_ops_append_binary(post.get(), dnnl_binary_mul, scale->get()));
#if DNNL_VERSION_MAJOR >= 3
  if (add)
    require_success(operation, "post_ops_append_sum",
                    dnnl_post_ops_append_sum(post.get(), 1.0f, 0, dnnl_data_type_undef));
#else
  if (add) require_success(operation, "post_ops_append_sum", dnnl_post_ops_append_sum(post.get(), 1.0f));
#endif
  require_success(operation, "set_post_ops", dnnl_primitive_attr_set_post_ops(attr.get(), post.get()));
  primitive_desc pd;
#if DNNL_VERSION_MAJOR >= 3
  require_success(operation, "set_deterministic", dnnl_primitive_attr_set_deterministic(attr.get(), 1));
  const dnnl_status_t status = dnnl_matmul_primitive_desc_create(pd.out(), engine, a.get(), b.get(), nullptr, c.get(),
                                                                 attr.get());
#else
  dnnl_matmul_desc_t desc;
  require_success(operation, "matmul_desc_init", dnnl_matmul_desc_init(&desc, a.get(), b.get(), nullptr, c.get()));
  const dnnl_status_t status = dnnl_primitive_desc_create(pd.out(), &desc, attr.get(), engine, nullptr);
#endif
  if (status != dnnl_unimplemented) require_success(operation, "primitive_desc_create", status);
  return pd;
}

/// oneDNN's own name of the implementation that it chose.
inline const char* implementation(const primitive_desc& pd) {
  const char* name = "";
  dnnl_primitive_desc_query(pd.get(), dnnl_query_impl_info_str, 0, static_cast<void*>(&name));
  return name;
}

/// The scratchpad that a primitive wants.
inline memory_desc::handle scratchpad_desc(const primitive_desc& pd) {
  return dnnl_primitive_desc_query_md(pd.get(), dnnl_query_scratchpad_md, 0);
}

/// Whether a primitive has run when `dnnl_primitive_execute` returns: so with OpenMP, TBB and the sequential runtime.
inline bool executes_at_once() {
  const unsigned runtime = dnnl_version()->cpu_runtime;
  return runtime == DNNL_RUNTIME_OMP || runtime == DNNL_RUNTIME_TBB || runtime == DNNL_RUNTIME_SEQ;
}

/// Whether the processor multiplies bf16 itself (AVX512-BF16, AMX); elsewhere oneDNN's bf16 matmul is missing or slower than a cast.
inline bool has_bf16_instructions() {
  return (static_cast<unsigned>(dnnl_get_effective_cpu_isa()) & static_cast<unsigned>(dnnl_cpu_isa_avx512_core_bf16)) ==
         static_cast<unsigned>(dnnl_cpu_isa_avx512_core_bf16);
}

}  // namespace onednn::compat

PLUMB_NAMESPACE_END
