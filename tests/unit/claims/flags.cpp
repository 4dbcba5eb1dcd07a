// Flags of the programs of the claims.
#include "claims/claims.hpp"
#include "support/catch.hpp"

using namespace claims;

namespace {

constexpr defaults usual{.name = "tea", .seeds = 5, .quick_seeds = 2, .first_seed = 1000};

flags read(std::vector<std::string> words) {
  std::vector<char*> pointers;
  for (auto& w : words) pointers.push_back(w.data());
  return parse(static_cast<int>(pointers.size()), pointers.data(), usual);
}
std::string complaint(const std::vector<std::string>& words) {
  try {
    (void)read(words);
  } catch (const wrong_flag& e) {
    return e.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("claims: flags, and the command that makes the same figures") {
  CHECK(read({}).all_seeds() == std::vector<std::uint64_t>{1000, 1001, 1002, 1003, 1004});
  CHECK(read({}).out == "out/tea");
  CHECK(read({}).command(usual) == "./dev demo tea");
  CHECK(read({"--quick"}).seeds == 2);
  CHECK(read({"--quick"}).out == "out/tea-quick");
  const flags f = read({"--seeds", "3", "--first-seed", "7", "--quick", "--threads", "2", "--out", "x", "--fresh"});
  CHECK((f.seeds == 3 && f.first_seed == 7 && f.threads == 2 && f.out == "x" && f.quick && f.fresh));
  CHECK(f.command(usual) == "./dev demo tea --quick --seeds 3 --first-seed 7");
  CHECK(read({"--seeds", "5"}).command(usual) == "./dev demo tea");
  CHECK(complaint({"--seeds", "0"}) == "--seeds wants a number from 1 to 1000, not \"0\"");
  CHECK(complaint({"--seeds", "--quick"}) == "--seeds wants a value");
  CHECK(complaint({"--out", ""}) == "--out wants a folder");
  CHECK(complaint({"--sed"}) == "unknown flag \"--sed\"");
}
