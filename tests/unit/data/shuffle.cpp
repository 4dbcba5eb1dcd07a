// Shuffling: every record once, the same for the same seed, none too early, every order as likely; and the range.
#include "support/data_files.hpp"

#include <algorithm>
#include <map>
#include <numeric>

using namespace plumb::data;
using namespace plumb_test;

namespace {

std::string numbered(int n) {
  std::string text;
  for (int i = 0; i < n; ++i)
    text += "{\"prompt\": \"" + std::to_string(i) + "\", \"completion\": \"c\", \"label\": true}\n";
  return text;
}

std::vector<int> order(const std::string& text, shuffle_options options) {
  unpaired_reader reader(input::from_memory(text));
  std::vector<int> all;
  for (const unpaired_example& e : shuffled(reader, options)) all.push_back(std::stoi(e.prompt.text));
  return all;
}

}  // namespace

TEST_CASE("shuffled: a permutation, within its window, the same for the same seed") {
  const int n = 1000;
  const std::string text = numbered(n);
  std::vector<int> file(n);
  std::iota(file.begin(), file.end(), 0);
  for (const std::size_t window : {0u, 1u, 2u, 7u, 100u, 1000u, 5000u}) {
    CAPTURE(window);
    const auto one = order(text, {.window = window, .seed = 3});
    CHECK(one == order(text, {.window = window, .seed = 3}));
    CHECK((one == file) == (window <= 1));
    if (window > 1) {
      CHECK(one != order(text, {.window = window, .seed = 4}));
      CHECK(one != order(text, {.window = window, .seed = 3, .epoch = 1}));
    }
    for (int place = 0; place < n; ++place)  // never more than window - 1 places before its own
      REQUIRE(one[static_cast<std::size_t>(place)] <= place + static_cast<int>(std::max<std::size_t>(window, 1)) - 1);
    auto sorted = one;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == file);
  }
}

namespace {
/// 0 .. n - 1: whatever has next() can be shuffled.
struct numbers {
  using record = int;
  int n, i = 0;
  std::optional<int> next() { return i < n ? std::optional(i++) : std::nullopt; }
};
}  // namespace

TEST_CASE("shuffled: with a window as large as the file every order is as likely") {
  std::map<std::vector<int>, int> seen;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    numbers three{3};
    std::vector<int> order;
    for (const int i : shuffled(three, {.window = 3, .seed = seed})) order.push_back(i);
    ++seen[order];
  }
  CHECK(seen.size() == 6);
  for (const auto& [permutation, count] : seen) {
    CHECK(count > 850);  // 1000 +- 29
    CHECK(count < 1150);
  }
}

TEST_CASE("shuffled: an error comes through, and nothing held is lost by it") {
  const std::string text = numbered(5) + "broken\n" + numbered(5);
  unpaired_reader reader(input::from_memory(text, "data.jsonl"));
  shuffled mixed(reader, {.window = 8, .seed = 1});
  int records = 0, errors = 0;
  for (;;) {
    try {
      if (!mixed.next()) break;
      ++records;
    } catch (const data_error& e) {
      ++errors;
      CHECK(e.line() == 6);
    }
  }
  CHECK(records == 10);
  CHECK(errors == 1);
}

TEST_CASE("reader: a loop over it sees what next() gives") {
  const std::string text = numbered(4);
  unpaired_reader reader(input::from_memory(text));
  std::string all;
  for (const auto& e : reader) all += e.prompt.text;
  CHECK(all == "0123");
  CHECK(!reader.next());
}
