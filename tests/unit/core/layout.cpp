// Layouts of sequences: packed, padded, masked; and from a mask to the list of scored tokens. Bounds are checked in checked mode.
#define PLUMB_CHECKED
#include "support/gradients.hpp"

#include <plumb/core/scored.hpp>

using namespace plumb;
using plumb_test::refusal;

TEST_CASE("layout: packed from cumulated lengths, without a copy") {
  const std::vector<std::int32_t> cu{0, 3, 3, 7};
  const auto l = sequence_layout<>::packed(cu);
  CHECK(l.sequences() == 3);
  CHECK(l.begin.data() == cu.data());
  CHECK(l.end(2) == 7);
  CHECK(count_scored(l) == 7);
  CHECK(sequence_layout<>::packed({}).sequences() == 0);
  CHECK(refusal([] { require_sequences("op", sequence_layout<>::packed({}), 7); }) ==
        "plumb: op: no sequences are given, but there are 7 tokens. Nothing was written.");
  CHECK(refusal([] { require_sequences("op", sequence_layout<>::packed({}), 0); }) == "(it was not refused)");
}

TEST_CASE("layout: what does not fit is refused") {
  const std::vector<std::int32_t> begin{0, 3}, end{3, 9}, one{3};
  const std::vector<std::uint8_t> scored(8, 1);
  CHECK(refusal([&] { require_layout("op", sequence_layout<>{begin, one, {}}, 9); }) ==
        "plumb: op: argument `end` has 1 elements, but `begin` has 2. Nothing was written.");
  CHECK(refusal([&] { require_layout("op", sequence_layout<>{begin, end, scored}, 9); }) ==
        "plumb: op: argument `scored` has shape [8], but its dimension 0 must be 9 (the number of tokens). Nothing was written.");
  CHECK(refusal([&] { require_layout("op", sequence_layout<>{begin, end, {}}, 8); }) ==
        "plumb: op: sequence 1 is tokens 3 to 9, but there are 8. Nothing was written.");
  CHECK(refusal([&] { require_layout("op", sequence_layout<>{end, begin, {}}, 9); }) ==
        "plumb: op: sequence 0 is tokens 3 to 0, but there are 9. Nothing was written.");
  CHECK(refusal([&] { require_ids("op", "ids", view<const std::int32_t, 1>(end), 9, true); }) ==
        "plumb: op: `ids[1]` is 9, but there are 9 to choose from. Nothing was written.");
}

TEST_CASE("scored_tokens: rows that predict, targets, and a packed layout over them") {
  const std::vector<std::int32_t> begin{0, 4, 8}, end{4, 7, 8}, ids{10, 11, 12, 13, 20, 21, 22, 99};
  const std::vector<std::uint8_t> mask{0, 0, 1, 1, 0, 1, 0, 1};
  const sequence_layout<> l{begin, end, mask};
  std::vector<std::int32_t> rows(3), targets(3), first(3), last(3);
  REQUIRE(count_scored(l) == 3);
  scored_tokens(l, ids, {rows, targets, first, last});
  CHECK(rows == std::vector<std::int32_t>{1, 2, 4});
  CHECK(targets == std::vector<std::int32_t>{12, 13, 21});
  CHECK(first == std::vector<std::int32_t>{0, 2, 3});
  CHECK(last == std::vector<std::int32_t>{2, 3, 3});
  CHECK(refusal([&] { scored_tokens({begin, end, {}}, ids, {rows, targets, first, last}); }) ==
        "plumb: scored_tokens: argument `rows` has shape [3], but its dimension 0 must be 7 (the number of scored tokens). Nothing was written.");
  rows.resize(7), targets.resize(7);
  CHECK(refusal([&] { scored_tokens({begin, end, {}}, ids, {rows, targets, first, last}); }) ==
        "plumb: scored_tokens: the first token of sequence 0 is scored, but no row predicts it. Nothing was written.");
}

TEST_CASE("layout: sequences that overlap are noticed; those of nothing overlap nothing") {
  const auto said = [](std::vector<std::int32_t> begin, std::vector<std::int32_t> end) {
    return refusal([&] { require_layout_data("loss", sequence_layout<>{begin, end, {}}, 12); });
  };
  CHECK(said({0, 4}, {4, 12}) == "(it was not refused)");
  CHECK(said({8, 0, 4}, {12, 4, 8}) == "(it was not refused)");
  CHECK(said({0, 2, 0}, {4, 2, 0}) == "(it was not refused)");
  CHECK(said({0, 3}, {4, 8}) == "plumb: loss: sequences 0 and 1 overlap: tokens 0 to 4, and 3 to 8. Nothing was written.");
  CHECK(said({0, 0}, {4, 4}) == "plumb: loss: sequences 0 and 1 overlap: tokens 0 to 4, and 0 to 4. Nothing was written.");
}

template <class L>
concept packs_a_temporary = requires { L::packed(std::vector<std::int32_t>{0, 2}); };

TEST_CASE("layout: the bounds of a padded batch") {
  std::vector<std::int32_t> begin(3), end(3);
  padded_bounds(5, begin, end);
  CHECK(begin == std::vector<std::int32_t>{0, 5, 10});
  CHECK(end == std::vector<std::int32_t>{5, 10, 15});
  std::vector<std::int32_t> two(2);
  CHECK(refusal([&] { padded_bounds(5, begin, two); }) == "plumb: padded_bounds: argument `end` has 2 elements, but `begin` has 3. Nothing was written.");
  static_assert(!packs_a_temporary<sequence_layout<>>);
}

TEST_CASE("view: one number that stays is an array of one, to read too") {
  double kl = 0.25;
  const view<const double, 1> read(kl);
  CHECK(read(0) == 0.25);
  CHECK(read.data() == &kl);
  static_assert(!std::is_constructible_v<view<const double, 1>, double>);
}
