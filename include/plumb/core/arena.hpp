#pragma once
// Scratch memory: a stack over memory of the caller's. An operation takes what it needs and gives it back when it returns.

#include <plumb/core/error.hpp>

PLUMB_NAMESPACE_BEGIN

/// Every block that an arena hands out starts at a multiple of this many bytes.
inline constexpr std::size_t arena_alignment = 64;

/// A stack of arrays over memory of the caller's, which must outlive it. For one queue; not thread-safe.
template <class Space = host_space>
class arena {
 public:
  using memory_space = Space;

  arena() = default;
  /// `bytes` bytes at `memory`, of any alignment; the memory stays the caller's.
  arena(void* memory, std::size_t bytes) : base_(static_cast<char*>(memory)), capacity_(bytes) {}
  /// A vector, span or array of bytes in host memory.
  template <contiguous_container C>
    requires(std::is_same_v<Space, host_space> && sizeof(*std::declval<C&>().data()) == 1)
  explicit arena(C& memory) : arena(memory.data(), memory.size()) {}

  arena(const arena&) = delete;
  arena& operator=(const arena&) = delete;

  /// An uninitialised row-major array; lives until the frame around it ends.
  template <class T, std::convertible_to<index_t>... E>
  view<T, static_cast<int>(sizeof...(E)), Space> take(E... extents) {
    std::size_t count = 1;
    bool possible = true;
    const auto multiply = [&](index_t extent) {
      possible = possible && extent >= 0 && (extent == 0 || count <= capacity_ / sizeof(T) / static_cast<std::size_t>(extent));
      count = possible ? count * static_cast<std::size_t>(extent) : 0;
    };
    (multiply(static_cast<index_t>(extents)), ...);
    const auto address = reinterpret_cast<std::uintptr_t>(base_) + used_;
    // An empty array takes nothing, so that `workspace_size` need not count it.
    const std::size_t skip = count > 0 ? (arena_alignment - address % arena_alignment) % arena_alignment : 0;
    if (!possible || skip + count * sizeof(T) > capacity_ - used_) {
      message m("arena");
      m << "is asked for an array ";
      const char* before = "[";
      ((m << before << static_cast<std::int64_t>(extents), before = ", "), ...);
      fail(m << "] of elements of " << sizeof(T) << " bytes, but " << (capacity_ - used_) << " of its " << capacity_
             << " bytes are left: size it with the operation's `..._workspace` function.");
    }
    T* p = reinterpret_cast<T*>(base_ + used_ + skip);
    used_ += skip + count * sizeof(T);
    if (used_ > peak_) peak_ = used_;
    return {p, static_cast<index_t>(extents)...};
  }

  /// Fails, before an operation writes anything, when fewer than `bytes` are left; `bytes` is what its `..._workspace` says.
  void require(const char* operation, std::size_t bytes) const {
    if (capacity_ - used_ >= bytes) return;
    fail(message(operation) << "the arena has " << (capacity_ - used_) << " bytes left, but " << operation
                            << "_workspace asks for " << bytes << ". Nothing was written.");
  }

  std::size_t used() const { return used_; }
  std::size_t peak() const { return peak_; }
  std::size_t capacity() const { return capacity_; }

  /// Gives back, at its end, all that was taken since its beginning.
  class frame {
   public:
    explicit frame(arena& a) : arena_(a), mark_(a.used_) {}
    ~frame() { arena_.used_ = mark_; }
    frame(const frame&) = delete;
    frame& operator=(const frame&) = delete;

   private:
    arena& arena_;
    std::size_t mark_;
  };

 private:
  char* base_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0, peak_ = 0;
};

arena(void*, std::size_t) -> arena<host_space>;
template <contiguous_container C>
arena(C&) -> arena<host_space>;

/// Adds up what a function will take from an arena. Frames that follow one another share memory: add the larger.
class workspace_size {
 public:
  template <class T>
  workspace_size& add(index_t count) {
    return add_bytes(count > 0 ? static_cast<std::size_t>(count) * sizeof(T) : 0);
  }
  /// What a nested call asks for, as its `..._workspace` says.
  workspace_size& add_bytes(std::size_t bytes) {
    if (bytes > 0) bytes_ += bytes + arena_alignment;
    return *this;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

PLUMB_NAMESPACE_END
