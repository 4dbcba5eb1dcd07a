#pragma once
// Errors: one sentence that names the operation, the argument and both shapes. Nothing is written before a check passes.

#include <plumb/core/view.hpp>

#include <initializer_list>

#if defined(PLUMB_NO_EXCEPTIONS)
#include <cstdio>
#include <cstdlib>
#else
#include <exception>
#endif

PLUMB_TYPES_BEGIN

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
  message& operator<<(char c) {
    const char one[2] = {c, '\0'};
    return *this << static_cast<const char*>(one);
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

PLUMB_TYPES_END
PLUMB_NAMESPACE_BEGIN

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

PLUMB_TYPES_END
PLUMB_NAMESPACE_BEGIN

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

/// Where `wanted`, leaving the argument out makes no sense beside the others.
template <class V>
void require_given(const char* operation, const char* name, const V& v, bool wanted) {
  if (wanted && !v.given()) fail(message(operation) << "argument `" << name << "` is not given. Nothing was written.");
}

/// An option outside its range, which `range` says in words ("positive", "in [0, 0.5)"). No option may be infinite or NaN, or so large or
/// small (1e30, 1e-30) that float would not hold it and its inverse.
inline void require_option(const char* operation, const char* name, double value, bool good, const char* range) {
  const bool finite = (std::bit_cast<std::uint64_t>(value) & message::exponent_bits) != message::exponent_bits;
  const double size = value < 0 ? -value : value;
  const bool held = finite && size <= 1e30 && !(0 < size && size < 1e-30);
  if (good && held) return;
  fail(message(operation) << "option `" << name << "` is " << value << " but must be " << (good && !finite ? "finite, and " : "")
                          << (good && finite ? "0 or between 1e-30 and 1e30 in size, and " : "") << range << ". Nothing was written.");
}

/// A mode that is none of its enumerators, `last` being the last of them: a cast from a number that means nothing.
template <class E>
void require_mode(const char* operation, const char* name, E value, E last) {
  const auto number = static_cast<std::int64_t>(value);
  if (number >= 0 && number <= static_cast<std::int64_t>(last)) return;
  fail(message(operation) << "option `" << name << "` is " << number << ", which is none of its modes (0 to " << static_cast<std::int64_t>(last)
                          << "). Nothing was written.");
}

/// One argument of a call under the name that the user typed: where its elements lie, whatever their type.
struct argument {
  const char* name;
  const char* data;
  int rank;
  index_t extents[4] = {1, 1, 1, 1};
  index_t steps[4] = {};  ///< strides in bytes
  index_t element;        ///< bytes

  template <class T, int R, class Space>
  argument(const char* n, const view<T, R, Space>& v)
      : name(n), data(reinterpret_cast<const char*>(v.data())), rank(R), element(static_cast<index_t>(sizeof(T))) {
    for (int d = 0; d < R; ++d) {
      extents[d] = v.extent(d);
      steps[d] = v.stride(d) * element;
    }
  }
  bool empty() const {
    for (const index_t e : extents)
      if (e == 0) return true;
    return false;
  }
  /// Offset of the first byte that it may touch, and of the byte after the last.
  index_t low() const { return reach(-1); }
  index_t high() const { return reach(1) + element; }
  /// Every element lies a multiple of this many bytes from the first; 0 for a single element.
  index_t grid(index_t common = 0) const {
    for (int d = 0; d < rank; ++d) {
      index_t step = extents[d] > 1 ? steps[d] : 0;
      while (step != 0) {  // Euclid
        const index_t rest = common % step;
        common = step;
        step = rest;
      }
    }
    return common < 0 ? -common : common;
  }
  /// The same elements in the same places.
  bool same_as(const argument& other) const {
    bool same = data == other.data && rank == other.rank && element == other.element;
    for (int d = 0; d < rank; ++d)
      same = same && extents[d] == other.extents[d] && (steps[d] == other.steps[d] || extents[d] == 1);
    return same;
  }
  friend message& operator<<(message& m, const argument& a) {
    m << "[";
    for (int d = 0; d < a.rank; ++d) m << (d > 0 ? ", " : "") << static_cast<std::int64_t>(a.extents[d]);
    return m << "]";
  }

 private:
  index_t reach(int sign) const {
    index_t sum = 0;
    for (int d = 0; d < rank; ++d)
      if ((sign < 0) == (steps[d] < 0)) sum += (extents[d] - 1) * steps[d];
    return sum;
  }
};

/// Whether two arguments share memory. Interleaved ones (the even and the odd entries of one array, two columns of one matrix) do not.
inline bool overlap(const argument& a, const argument& b) {
  if (a.data == nullptr || b.data == nullptr || a.empty() || b.empty()) return false;
  if (a.data + a.high() <= b.data + b.low() || b.data + b.high() <= a.data + a.low()) return false;
  const index_t grid = b.grid(a.grid());
  if (grid == 0) return true;
  const index_t ahead = ((b.data - a.data) % grid + grid) % grid;  // from an element of a to the next of b, on the common grid
  return ahead < a.element || grid - ahead < b.element;
}

/// `output` shares no memory with `other`.
inline void require_disjoint(const char* operation, const argument& output, const argument& other) {
  if (overlap(output, other))
    fail(message(operation) << "output `" << output.name << "` overlaps `" << other.name << "` in memory. Nothing was written.");
}

/// What holds for the arguments of every call: no extent is negative, what has elements has memory, elements of an output are apart, and no
/// output shares memory with another or with an input. Arguments that are not given pass.
inline void require_arguments(const char* operation, std::initializer_list<argument> outputs, std::initializer_list<argument> inputs) {
  const auto require_whole = [&](const argument& a) {
    bool negative = false;
    for (int d = 0; d < a.rank; ++d) negative = negative || a.extents[d] < 0;
    if (negative) fail(message(operation) << "argument `" << a.name << "` has shape " << a << ", with an extent below 0. Nothing was written.");
    if (a.data == nullptr && !a.empty())
      fail(message(operation) << "argument `" << a.name << "` has shape " << a << " but no memory. Nothing was written.");
  };
  for (const argument& a : inputs) require_whole(a);
  for (const argument& a : outputs) {
    require_whole(a);
    for (int d = 0; d < a.rank; ++d)
      if (a.data != nullptr && a.extents[d] > 1 && a.steps[d] == 0)
        fail(message(operation) << "output `" << a.name << "` of shape " << a << " has stride 0 in dimension " << d
                                << ": its elements are one and the same. Nothing was written.");
  }
  for (const argument* a = outputs.begin(); a != outputs.end(); ++a) {
    for (const argument* b = a + 1; b != outputs.end(); ++b) require_disjoint(operation, *a, *b);
    for (const argument& b : inputs) require_disjoint(operation, *a, b);
  }
}

PLUMB_NAMESPACE_END
