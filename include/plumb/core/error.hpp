#pragma once
// Errors: one sentence that names the operation, the argument and both shapes. Nothing is written before a check passes.

#include <plumb/core/view.hpp>

#if defined(PLUMB_NO_EXCEPTIONS)
#include <cstdio>
#include <cstdlib>
#else
#include <exception>
#endif

PLUMB_NAMESPACE_BEGIN

/// Text in a fixed buffer: building a message allocates nothing and pulls in no stream.
class message {
 public:
  message() = default;
  /// "plumb: <operation>: "
  explicit message(const char* operation) { *this << "plumb: " << operation << ": "; }

  message& operator<<(const char* s) {
    while (*s != '\0' && length_ + 1 < capacity) text_[length_++] = *s++;
    text_[length_] = '\0';
    return *this;
  }
  message& operator<<(std::int64_t n) {
    char digits[24];
    int i = 23;
    digits[i] = '\0';
    // Negative remainders are used as they are: the most negative number has no positive counterpart.
    const bool negative = n < 0;
    do {
      digits[--i] = static_cast<char>('0' + (negative ? -(n % 10) : n % 10));
      n /= 10;
    } while (n != 0);
    if (negative) digits[--i] = '-';
    return *this << static_cast<const char*>(digits + i);
  }
  message& operator<<(std::size_t n) { return *this << static_cast<std::int64_t>(n); }
  message& operator<<(int n) { return *this << static_cast<std::int64_t>(n); }
  /// Six significant digits.
  message& operator<<(double x) {
    // By bit pattern: comparisons with infinity and NaN mean nothing under -ffast-math.
    const auto bits = std::bit_cast<std::uint64_t>(x);
    if ((bits & exponent_bits) == exponent_bits)
      return *this << ((bits & ~exponent_bits) << 1 != 0 ? "nan" : bits >> 63 ? "-inf" : "inf");
    if (x < 0) {
      *this << "-";
      x = -x;
    }
    int exponent = 0;
    if (x >= 1e6 || (x != 0 && x < 1e-4)) {
      while (x >= 10) x /= 10, ++exponent;
      while (x < 1) x *= 10, --exponent;
    }
    const auto micro = static_cast<std::int64_t>(x * 1e6 + 0.5);
    *this << micro / 1000000;
    char fraction[8] = {'.', '0', '0', '0', '0', '0', '0', '\0'};
    std::int64_t rest = micro % 1000000;
    for (int i = 6; i > 0; --i, rest /= 10) fraction[i] = static_cast<char>('0' + rest % 10);
    for (int i = 6; i >= 0 && (fraction[i] == '0' || fraction[i] == '.'); --i) fraction[i] = '\0';
    *this << static_cast<const char*>(fraction);
    if (exponent != 0) *this << "e" << exponent;
    return *this;
  }
  template <class T, int R, class Space>
  message& operator<<(const view<T, R, Space>& v) {
    *this << "[";
    for (int d = 0; d < R; ++d) *this << (d > 0 ? ", " : "") << static_cast<std::int64_t>(v.extent(d));
    return *this << "]";
  }
  const char* c_str() const { return text_; }

  static constexpr int capacity = 512;
  static constexpr std::uint64_t exponent_bits = 0x7ff0000000000000u;

 private:
  char text_[capacity] = {};
  int length_ = 0;
};

#if defined(PLUMB_NO_EXCEPTIONS)

/// Called with the sentence; must not return (if it does, the program aborts).
using error_handler = void (*)(const char* sentence);

/// The handler until another is installed: the sentence goes to stderr.
inline void print_and_abort(const char* sentence) {
  std::fputs(sentence, stderr);
  std::fputc('\n', stderr);
  std::abort();
}
/// The handler in force.
inline error_handler& current_error_handler() {
  static constinit error_handler handler = print_and_abort;
  return handler;
}
/// Installs the handler of this mode; returns the one before.
inline error_handler set_error_handler(error_handler next) {
  const error_handler before = current_error_handler();
  current_error_handler() = next;
  return before;
}
/// Reports a broken precondition; does not return.
[[noreturn]] inline void fail(const message& m) {
  current_error_handler()(m.c_str());
  std::abort();
}
/// Reports what the machine below said; does not return.
[[noreturn]] inline void fail_backend(const message& m, int) { fail(m); }

#else

/// Base of everything that plumb throws.
class error : public std::exception {
 public:
  explicit error(const message& m) : message_(m) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  message message_;
};
/// An argument or option that a call cannot take; outputs are as they were.
class precondition_error : public error {
 public:
  using error::error;
};
/// What the machine below reported, with its own code.
class backend_error : public error {
 public:
  backend_error(const message& m, int code) : error(m), code_(code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};
/// Throws `precondition_error`; without exceptions, calls the handler.
[[noreturn]] inline void fail(const message& m) { throw precondition_error(m); }
/// Throws `backend_error`, with the code of the library below; without exceptions, calls the handler.
[[noreturn]] inline void fail_backend(const message& m, int code) { throw backend_error(m, code); }

#endif

// The checks that every layer shares. `operation` and `name` are what the user typed.

/// `v` must have the shape of `w`, the argument called `other`; both have the same rank.
template <class V, class W>
void require_same_shape(const char* operation, const char* name, const V& v, const char* other, const W& w) {
  static_assert(V::rank == W::rank);
  bool same = true;
  for (int d = 0; d < V::rank; ++d) same = same && v.extent(d) == w.extent(d);
  if (same) return;
  if constexpr (V::rank == 1) {
    fail(message(operation) << "argument `" << name << "` has " << v.extent(0) << " elements, but `" << other << "` has "
                            << w.extent(0) << ". Nothing was written.");
  } else {
    fail(message(operation) << "argument `" << name << "` has shape " << v << ", but `" << other << "` has shape " << w
                            << ". Nothing was written.");
  }
}

/// Dimension `d` of `v` must be `expected`, which is `meaning` ("the number of pairs").
template <class V>
void require_extent(const char* operation, const char* name, const V& v, int d, index_t expected, const char* meaning) {
  if (v.extent(d) == expected) return;
  fail(message(operation) << "argument `" << name << "` has shape " << v << ", but its dimension " << d << " must be "
                          << expected << " (" << meaning << "). Nothing was written.");
}

/// What has elements has memory. `wanted`: leaving the argument out makes no sense beside the others.
template <class V>
void require_given(const char* operation, const char* name, const V& v, bool wanted = false) {
  if (v.given()) return;
  if (!v.empty())
    fail(message(operation) << "argument `" << name << "` has shape " << v << " but no memory. Nothing was written.");
  if (wanted) fail(message(operation) << "argument `" << name << "` is not given. Nothing was written.");
}

/// An option outside its range, which `range` says in words ("positive", "in [0, 0.5)"); no option may be infinite or NaN.
inline void require_option(const char* operation, const char* name, double value, bool good, const char* range) {
  const bool finite = (std::bit_cast<std::uint64_t>(value) & message::exponent_bits) != message::exponent_bits;
  if (good && finite) return;
  fail(message(operation) << "option `" << name << "` is " << value << " but must be " << (good ? "finite, and " : "") << range
                          << ". Nothing was written.");
}

/// First and last byte that a view may touch.
template <class V>
struct byte_range {
  const char* first;
  const char* last;
  explicit byte_range(const V& v) : first(reinterpret_cast<const char*>(v.data())), last(first) {
    if (v.empty()) return;
    index_t low = 0, high = 0;
    for (int d = 0; d < V::rank; ++d) {
      const index_t reach = (v.extent(d) - 1) * v.stride(d);
      (reach < 0 ? low : high) += reach;
    }
    const auto bytes = static_cast<index_t>(sizeof(typename V::value_type));
    last = first + (high + 1) * bytes;
    first += low * bytes;
  }
};

/// Every element of a view lies a multiple of this many bytes from its first; 0 for a single element.
template <class V>
index_t byte_grid(const V& v, index_t grid = 0) {
  for (int d = 0; d < V::rank; ++d) {
    index_t step = v.extent(d) > 1 ? v.stride(d) * static_cast<index_t>(sizeof(typename V::value_type)) : 0;
    while (step != 0) {  // Euclid
      const index_t rest = grid % step;
      grid = step;
      step = rest;
    }
  }
  return grid < 0 ? -grid : grid;
}

/// Outputs must not overlap inputs or one another unless the operation says so. Interleaved views (the even and the odd entries of one
/// array, two columns of one matrix) do not overlap.
template <class V, class W>
void require_disjoint(const char* operation, const char* name, const V& v, const char* other, const W& w) {
  if (!v.given() || !w.given()) return;
  const byte_range<V> a(v);
  const byte_range<W> b(w);
  if (a.last <= b.first || b.last <= a.first) return;
  const index_t grid = byte_grid(w, byte_grid(v));
  if (grid > 0) {
    const auto distance = reinterpret_cast<const char*>(w.data()) - reinterpret_cast<const char*>(v.data());
    const index_t ahead = (distance % grid + grid) % grid;  // from an element of v to the next of w, on the common grid
    if (ahead >= static_cast<index_t>(sizeof(typename V::value_type)) &&
        grid - ahead >= static_cast<index_t>(sizeof(typename W::value_type)))
      return;
  }
  fail(message(operation) << "output `" << name << "` overlaps `" << other << "` in memory. Nothing was written.");
}

PLUMB_NAMESPACE_END
