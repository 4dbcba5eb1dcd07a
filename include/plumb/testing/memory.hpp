#pragma once
// Arrays for tests, in any memory space and any layout, with guards around them that show what was touched.

#include <plumb/core/random.hpp>
#include <plumb/core/view.hpp>

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

PLUMB_NAMESPACE_BEGIN

namespace testing {

/// How tests reach a memory space. For a space of your own, specialise it with the same four functions.
template <class Space>
struct memory;

/// Host memory, by malloc.
template <>
struct memory<host_space> {
  static void* allocate(std::size_t bytes) { return std::malloc(bytes > 0 ? bytes : 1); }
  static void release(void* p) { std::free(p); }
  static void upload(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
  static void download(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
};

/// Bytes in a memory space.
template <class Space>
class block {
 public:
  explicit block(std::size_t bytes) : pointer_(memory<Space>::allocate(bytes)), bytes_(bytes) {}
  block(block&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)), bytes_(other.bytes_) {}
  block& operator=(block&&) = delete;
  ~block() {
    if (pointer_ != nullptr) memory<Space>::release(pointer_);
  }
  void* data() const { return pointer_; }
  std::size_t bytes() const { return bytes_; }
  void fill(unsigned char value) {
    const std::vector<unsigned char> bytes(bytes_, value);
    memory<Space>::upload(pointer_, bytes.data(), bytes_);
  }

 private:
  void* pointer_;
  std::size_t bytes_;
};

/// How an array lies in memory.
enum class placement {
  dense,
  padded,      ///< rows with a gap after each
  strided,     ///< every third element
  transposed,  ///< the last two dimensions exchanged (rank 1: dense)
  reversed,    ///< negative strides
};
/// Every placement, for tests that go through all.
inline constexpr placement placements[] = {placement::dense, placement::padded, placement::strided, placement::transposed,
                                           placement::reversed};

/// An array of rank `R` whose every byte outside its elements is known. Those bytes, and elements never given, are 0xff: NaN, or id -1.
template <class T, int R, class Space>
class placed {
 public:
  placed(const index_t (&extents)[R], placement how, const std::vector<double>& values = {})
      : count_(1), memory_((set_extents(extents, how), bytes())), host_(bytes(), 0xff) {
    if (!values.empty()) set(values);
    upload();
  }

  /// New values for all elements, in row-major order; the rest of the memory becomes 0xff again.
  void set(const std::vector<double>& values) {
    host_.assign(bytes(), 0xff);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const T x = from_double(values[i]);
      std::memcpy(&host_[byte_of(i)], &x, sizeof(T));
    }
    upload();
  }
  void upload() { memory<Space>::upload(memory_.data(), host_.data(), host_.size()); }

  plumb::view<T, R, Space> view() const {
    plumb::view<T, R, Space> v;
    v.pointer = static_cast<T*>(memory_.data()) + origin_;
    for (int d = 0; d < R; ++d) {
      v.extents[d] = extents_[d];
      v.strides[d] = strides_[d];
    }
    return v;
  }
  plumb::view<const T, R, Space> in() const { return view(); }

  /// The elements as they are in memory now, in row-major order.
  std::vector<double> read() const {
    const auto now = download();
    std::vector<double> values(static_cast<std::size_t>(count_));
    for (std::size_t i = 0; i < values.size(); ++i) {
      T x;
      std::memcpy(&x, &now[byte_of(i)], sizeof(T));
      values[i] = to_double(x);
    }
    return values;
  }
  /// What was given last, as the element type rounds it.
  std::vector<double> given() const {
    std::vector<double> values(static_cast<std::size_t>(count_));
    for (std::size_t i = 0; i < values.size(); ++i) {
      T x;
      std::memcpy(&x, &host_[byte_of(i)], sizeof(T));
      values[i] = to_double(x);
    }
    return values;
  }
  /// Every byte is as it was given.
  bool unchanged() const { return download() == host_; }
  /// Every byte outside the elements is as it was given.
  bool guards_unchanged() const {
    auto now = download();
    for (std::size_t i = 0; i < static_cast<std::size_t>(count_); ++i)
      std::memcpy(&now[byte_of(i)], &host_[byte_of(i)], sizeof(T));
    return now == host_;
  }
  /// The bytes as they are now, to compare one run with another.
  std::vector<unsigned char> download() const {
    std::vector<unsigned char> now(host_.size());
    memory<Space>::download(now.data(), memory_.data(), now.size());
    return now;
  }
  index_t size() const { return count_; }

 private:
  static constexpr index_t guard = 64;

  static T from_double(double x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(x);
    } else if constexpr (std::is_same_v<T, double>) {
      return x;
    } else {
      return convert<T>(static_cast<float>(x));
    }
  }
  static double to_double(const T& x) {
    if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) {
      return static_cast<double>(static_cast<float>(x));
    } else {
      return static_cast<double>(x);
    }
  }

  void set_extents(const index_t (&extents)[R], placement how) {
    int order[R];  // dimensions from the innermost
    for (int d = 0; d < R; ++d) {
      extents_[d] = extents[d];
      order[d] = R - 1 - d;
      count_ *= extents[d];
    }
    if constexpr (R >= 2)
      if (how == placement::transposed) std::swap(order[0], order[1]);
    index_t stride = how == placement::strided ? 3 : 1;
    for (int k = 0; k < R; ++k) {
      strides_[order[k]] = stride;
      stride *= extents_[order[k]] > 0 ? extents_[order[k]] : 1;
      if (k == 0 && how == placement::padded) stride += 5;
    }
    elements_ = stride + 2 * guard;
    origin_ = guard;
    if (how != placement::reversed) return;
    for (int d = 0; d < R; ++d) {
      if (extents_[d] > 0) origin_ += (extents_[d] - 1) * strides_[d];
      strides_[d] = -strides_[d];
    }
  }
  std::size_t bytes() const { return static_cast<std::size_t>(elements_) * sizeof(T); }
  std::size_t byte_of(std::size_t i) const {
    index_t offset = origin_, rest = static_cast<index_t>(i);
    for (int d = R; d-- > 0; rest /= extents_[d]) offset += rest % extents_[d] * strides_[d];
    return static_cast<std::size_t>(offset) * sizeof(T);
  }

  index_t extents_[R] = {}, strides_[R] = {};
  index_t count_, elements_ = 0, origin_ = 0;
  block<Space> memory_;
  std::vector<unsigned char> host_;
};

/// Normal numbers with the given mean and deviation, the same for the same seed.
inline std::vector<double> normal_numbers(std::uint64_t seed, index_t count, double deviation = 1, double mean = 0) {
  const random_stream stream{seed, 0};
  std::vector<double> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = mean + deviation * stream.normal(i);
  return x;
}
/// Ids in `0 .. choices`, about one in `skip_one_in` of them -1 (0: none).
inline std::vector<double> random_ids(std::uint64_t seed, index_t count, index_t choices, std::uint64_t skip_one_in = 5) {
  const random_stream stream{seed, 1}, skips{seed, 2};
  std::vector<double> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const bool skip = choices < 1 || (skip_one_in > 0 && skips.below(skip_one_in, i) == 0);
    x[i] = skip ? -1.0 : static_cast<double>(stream.below(static_cast<std::uint64_t>(choices), i));
  }
  return x;
}

}  // namespace testing

PLUMB_NAMESPACE_END
