// Other libraries' arrays, by fakes of their interfaces.
#include "support/gradients.hpp"

#include <plumb/core/as_view.hpp>

#include <array>

using namespace plumb;
using plumb_test::refusal;

namespace {

struct fake_mdspan {
  double* p;
  static constexpr std::size_t rank() { return 2; }
  std::size_t extent(std::size_t d) const { return d == 0 ? 3 : 2; }
  std::size_t stride(std::size_t d) const { return d == 0 ? 1 : 3; }  // column-major
  double* data_handle() const { return p; }
};
struct fake_xtensor {
  std::vector<float> storage;
  float* data() { return storage.data(); }
  const float* data() const { return storage.data(); }
  std::array<std::size_t, 2> shape() const { return {2, 3}; }
  std::array<std::ptrdiff_t, 2> strides() const { return {3, 1}; }
  std::size_t dimension() const { return 2; }
};
/// The fields of DLPack's structure, in its layout.
struct fake_dltensor {
  void* data;
  struct {
    int device_type, device_id;
  } device;
  int ndim;
  struct {
    std::uint8_t code, bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

}  // namespace

TEST_CASE("as_view: mdspan") {
  std::vector<double> x{1, 2, 3, 4, 5, 6};
  const auto v = as_view<2>(fake_mdspan{x.data()});
  static_assert(std::is_same_v<decltype(v), const view<double, 2>>);
  CHECK(v.extent(0) == 3);
  CHECK(v(2, 1) == 6);
  CHECK(refusal([&] { as_view<1>(fake_mdspan{x.data()}); }) == "plumb: as_view: the array has rank 2, but a view of rank 1 is asked for.");
}

TEST_CASE("as_view: xtensor") {
  fake_xtensor x{{1, 2, 3, 4, 5, 6}};
  CHECK(as_view<2>(x)(1, 2) == 6);
  const fake_xtensor& c = x;
  static_assert(std::is_same_v<decltype(as_view<2>(c)), view<const float, 2>>);
}

TEST_CASE("as_view: DLPack, with strides and without, and what does not fit") {
  std::vector<float> x{0, 1, 2, 3, 4, 5, 6};
  std::int64_t shape[2] = {2, 3}, strides[2] = {1, 2};
  fake_dltensor t{x.data(), {1, 0}, 2, {2, 32, 1}, shape, nullptr, 4};
  CHECK(as_view<const float, 2>(t)(1, 2) == 6);
  t.strides = strides;
  CHECK(as_view<float, 2>(t)(1, 2) == 6);
  CHECK(as_view<float, 2>(t)(0, 2) == 5);
  CHECK(refusal([&] { as_view<double, 2>(t); }) == "plumb: as_view: the tensor's element type (code 2, 32 bits) is not double.");
  CHECK(refusal([&] { as_view<std::int32_t, 2>(t); }) == "plumb: as_view: the tensor's element type (code 2, 32 bits) is not int32.");
  t.device.device_type = 2;
  CHECK(refusal([&] { as_view<float, 2>(t); }) == "plumb: as_view: the tensor lies on device type 2, not in host memory.");
  t = {x.data(), {1, 0}, 2, {4, 16, 1}, shape, nullptr, 0};
  CHECK(as_view<bf16, 2>(t).extent(1) == 3);
}
