// The arena: aligned blocks, frames that give back, sizes that are always enough.
#include "support/gradients.hpp"

#include <plumb/core/arena.hpp>
#include <plumb/core/random.hpp>

using namespace plumb;
using plumb_test::refusal;

TEST_CASE("arena: blocks are aligned, distinct, and given back by frames") {
  std::vector<char> memory(4096);
  arena<> a(memory.data() + 1, 4000);
  {
    const arena<>::frame frame(a);
    const auto x = a.take<float>(10), y = a.take<float>(10);
    const auto z = a.take<double>(3, 4);
    for (const void* p : {static_cast<void*>(x.data()), static_cast<void*>(y.data()), static_cast<void*>(z.data())})
      CHECK(reinterpret_cast<std::uintptr_t>(p) % arena_alignment == 0);
    CHECK(y.data() >= x.data() + 10);
    CHECK(z.extent(1) == 4);
    CHECK(a.used() > 0);
  }
  CHECK(a.used() == 0);
  CHECK(a.peak() >= 10 * 4 + 10 * 4 + 12 * 8);
}

TEST_CASE("arena: nothing takes nothing, too much is refused") {
  arena<> none;
  CHECK(none.take<float>(0).empty());
  CHECK(refusal([&] { none.take<float>(5); }) ==
        "plumb: arena: is asked for an array [5] of elements of 4 bytes, but 0 of its 0 bytes are left: size it with the operation's `..._workspace` "
        "function.");
  std::vector<char> memory(100);
  arena<> a(memory);
  CHECK(refusal([&] { a.require("dpo", 101); }) ==
        "plumb: dpo: the arena has 100 bytes left, but dpo_workspace asks for 101. Nothing was written.");
  CHECK(refusal([&] { a.require("dpo", 100); }) == "(it was not refused)");
  // Products that wrap around, and extents below 0, are no small arrays.
  constexpr index_t huge = index_t{1} << 61;
  for (const auto& [rows, columns] : {std::pair{huge, index_t{8}}, {huge + 1, index_t{8}}, {index_t{-1}, index_t{-8}}, {index_t{2}, index_t{-1}}}) {
    CHECK_THAT(refusal([&, m = rows, n = columns] { a.take<float>(m, n); }), Catch::Matchers::StartsWith("plumb: arena: is asked for an array ["));
    CHECK(a.used() == 0);
  }
  CHECK(workspace_size().add<float>(-5).bytes() == 0);
}

TEST_CASE("arena: a workspace_size is enough wherever the memory starts") {
  const random_stream draw{1, 2};
  std::uint64_t counter = 0;
  for (int round = 0; round < 500; ++round) {
    std::vector<index_t> counts;
    workspace_size w;
    for (std::uint64_t i = draw.below(6, counter++); i-- > 0;) {
      counts.push_back(static_cast<index_t>(draw.below(70, counter++)));
      w.add<double>(counts.back());
    }
    std::vector<char> memory(w.bytes() + 64);
    arena<> a(memory.data() + draw.below(64, counter++), w.bytes());
    for (const index_t n : counts) REQUIRE(a.take<double>(n).size() == n);
    REQUIRE(a.peak() <= w.bytes());
  }
}
