// Options by name: every option prints, reads back and is checked; a difference names exactly what differs; nothing is left out.
#include "support/catch.hpp"
#include "support/gradients.hpp"

#include <plumb/presets.hpp>
#include <plumb/reflect.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <string>
#include <vector>

using namespace plumb;
using plumb_test::refusal;

TEST_CASE("options print with their names in order") {
  CHECK(reflect::to_text(dpo_options{.beta = 0.25}) == "{beta: 0.25, label_smoothing: 0, reference_free: false, denominator: 0, weight: 1}");
  CHECK(reflect::to_text(supervised_options{.aggregate = aggregation::sequence_mean, .denominator = 20}) ==
        "{aggregate: sequence_mean, denominator: 20, length_epsilon: 0, weight: 1}");
}

TEST_CASE("nested options are one value") {
  CHECK(reflect::to_text(linear_token_logp_options{.logits = {.temperature = 0.7}, .chunk_rows = 64}) ==
        "{logits: {temperature: 0.7, softcap: 0, logit_scale: 1}, chunk_rows: 64}");
}

TEST_CASE("numbers print as the shortest text that reads back the same") {
  CHECK(reflect::to_text(0.1) == "0.1");
  CHECK(reflect::to_text(1.0 / 3) == "0.3333333333333333");
  CHECK(std::stod(reflect::to_text(0.1 + 0.2)) == 0.1 + 0.2);
  CHECK(reflect::to_text(1e-8) == "1e-08");
}

TEST_CASE("a difference names what differs and nothing else") {
  CHECK(reflect::difference(dpo_options{}, dpo_options{}).empty());
  CHECK(reflect::difference(dpo_options{}, dpo_options{.beta = 0.2, .denominator = 8}) == "beta: 0.1 -> 0.2, denominator: 0 -> 8");
  CHECK(reflect::difference(presets::trl().ppo().options, presets::verl().ppo().options) == "log_ratio_low: 0 -> 20, log_ratio_high: 0 -> 20");
}

TEST_CASE("text is read back, as printed or as JSON; what is not named keeps its value") {
  const auto o = reflect::parse<policy_loss_options>(R"({"aggregate": "sequence_mean", kl: {estimator: k2}, kl_coefficient: 0.05,
                                                        "kl_times_ratio": true})",
                                                     {.length_epsilon = 1e-8});
  CHECK(o.aggregate == aggregation::sequence_mean);
  CHECK(o.kl.estimator == kl_estimator::k2);
  CHECK(o.kl_coefficient == 0.05);
  CHECK(o.kl_times_ratio);
  CHECK(o.length_epsilon == 1e-8);
  dpo_options d;
  reflect::set(d, "beta", "0.3");
  CHECK(d.beta == 0.3);
}

TEST_CASE("what cannot be read is told in a sentence, and nothing is changed") {
  dpo_options d{.beta = 0.4};
  const auto refused = [&](const char* name, const char* value) { return refusal([&] { reflect::set(d, name, value); }); };
  CHECK(refused("betta", "0.3") == "plumb: reflect: dpo_options has no option `betta`; it has beta, label_smoothing, reference_free, denominator, "
                                   "weight. Nothing was changed.");
  CHECK(refused("beta", "much") == "plumb: reflect: option `beta`: expected a number, but found `much`. Nothing was changed.");
  CHECK(refused("beta", "-1") == "plumb: dpo_options: option `beta` is -1 but must be positive. Nothing was written.");
  CHECK(refused("reference_free", "2") == "plumb: reflect: option `reference_free`: expected true or false, but found `2`. Nothing was changed.");
  CHECK(refused("beta", "0.3, weight: 5") == "plumb: reflect: expected nothing more, but found `, weight: 5`. Nothing was changed.");
  CHECK(refused("beta: 0.7, weight", "9").find("has no option `beta: 0.7, weight`") != std::string::npos);
  CHECK(d.beta == 0.4);
  CHECK(d.weight == 1);
  CHECK(refusal([] { reflect::parse<dpo_options>("{beta: 0.1, beta: 0.2}"); }) ==
        "plumb: reflect: option `beta` stands there twice. Nothing was changed.");
  CHECK(refusal([] { reflect::parse<aggregate_options>("{mode: mean}"); }) ==
        "plumb: reflect: option `mode`: expected token_mean, sequence_mean, sequence_sum, but found `mean`. Nothing was changed.");
  CHECK(refusal([] { reflect::parse<aggregate_options>("{weight: 3"); }) ==
        "plumb: reflect: expected `,`, but found `the end`. Nothing was changed.");
  CHECK(refusal([] { reflect::parse<aggregate_options>("{} and more"); }) ==
        "plumb: reflect: expected nothing more, but found `and more`. Nothing was changed.");
}

namespace {

// Counts the members of an aggregate by asking how many initialisers it takes.
struct anything {
  template <class T>
  operator T() const;
};
template <class T, class... A>
constexpr std::size_t members() {
  if constexpr (requires { T{A{}..., anything{}}; }) {
    return members<T, A..., anything>();
  } else {
    return sizeof...(A);
  }
}

template <class F, class... T>
void each_type(types<T...>, const F& f) {
  (f(std::type_identity<T>{}), ...);
}

// Every number and mode of the options in turn made another, so that a member that is not read, or read into another, is seen.
template <class T>
void change(T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    value = !value;
  } else if constexpr (std::is_enum_v<T>) {
    value = reflect::enumerators<T>::all[value == reflect::enumerators<T>::all[0].value ? 1 : 0].value;
  } else if constexpr (std::is_arithmetic_v<T>) {
    value = value == T(1) ? T(2) : T(1);
  }
}

}  // namespace

TEST_CASE("every option type: whole, printed, read back, valid by default") {
  std::size_t seen = 0;
  each_type(reflect::catalogue{}, [&]<class O>(std::type_identity<O>) {
    ++seen;
    CAPTURE(reflect::name_of<O>);
    O o{};
    std::size_t named = 0;
    reflect::for_each(o, [&](const char*, auto&) { ++named; });
    CHECK(named == members<O>());
    CHECK(reflect::to_text(reflect::parse<O>(reflect::to_text(o))) == reflect::to_text(o));
    for (std::size_t which = 0; which < named; ++which) {
      O other{};
      std::size_t at = 0;
      reflect::for_each(other, [&](const char*, auto& value) {
        if (at++ == which) change(value);
      });
      O read{};
      const std::string printed = reflect::to_text(other);
      reflect::detail::reader(printed).read(read);  // not validated: a changed number may be out of range
      CHECK(reflect::to_text(read) == reflect::to_text(other));
    }
  });
  CHECK(seen > 90);
}

TEST_CASE("every option type of the headers is in the catalogue") {
  std::ifstream file(PLUMB_SOURCE_DIR "/include/plumb/reflect/catalogue.hpp");
  const std::string catalogue{std::istreambuf_iterator<char>(file), {}};
  const std::regex declaration(R"((?:^|\n)struct (\w+_options) \{)");
  std::size_t found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(PLUMB_SOURCE_DIR "/include/plumb")) {
    const std::string path = entry.path().string();
    if (entry.path().extension() != ".hpp" || path.find("/data/") != std::string::npos || path.find("/testing/") != std::string::npos) continue;
    std::ifstream header(entry.path());
    const std::string text{std::istreambuf_iterator<char>(header), {}};
    for (std::sregex_iterator i(text.begin(), text.end(), declaration), end; i != end; ++i) {
      const std::string name = (*i)[1];
      const auto begin = text.begin() + i->position(), end_of_struct = std::search(begin, text.end(), std::begin("\n};"), std::end("\n};") - 1);
      // One with callbacks of the host's in it cannot be printed and read back.
      if (std::string(begin, end_of_struct).find("std::function<") != std::string::npos) continue;
      ++found;
      CAPTURE(path, name);
      CHECK((catalogue.find("row(" + name) != std::string::npos || catalogue.find("::" + name) != std::string::npos));
    }
  }
  CHECK(found > 40);
}

namespace {

// Calls `f(name, number)` for every number of the options that has a range to keep, those of nested options too. Denominators belong to a batch;
// any number is a seed, a step or no end token.
template <class O, class F>
void each_number(O& o, const F& f) {
  reflect::for_each(o, [&](const char* name, auto& value) {
    using type = std::remove_cvref_t<decltype(value)>;
    if constexpr (reflect::options<type>) {
      each_number(value, f);
    } else if constexpr (std::is_arithmetic_v<type> && !std::is_same_v<type, bool>) {
      for (const char* any : {"denominator", "seed", "step", "first_row", "end_token", "max_cut"})
        if (std::string(name) == any) return;
      f(name, value);
    }
  });
}
template <class O>
std::size_t count_numbers() {
  O o{};
  std::size_t n = 0;
  each_number(o, [&](const char*, auto&) { ++n; });
  return n;
}

}  // namespace

TEST_CASE("every option type with numbers checks them: none takes NaN, infinity, what float cannot hold, or a count below 0") {
  const double infinity = std::numeric_limits<double>::infinity();
  each_type(reflect::catalogue{}, [&]<class O>(std::type_identity<O>) {
    CAPTURE(reflect::name_of<O>);
    constexpr bool checks = requires(const O& o) { o.require("x"); };
    const std::size_t numbers = count_numbers<O>();
    CHECK((checks || numbers == 0));
    if constexpr (checks) {
      for (std::size_t which = 0; which < numbers; ++which) {
        for (const double bad : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity, 1e300}) {
          O o{};
          std::string changed;
          std::size_t at = 0;
          each_number(o, [&](const char* name, auto& value) {
            if (at++ != which) return;
            changed = name;
            if constexpr (std::is_floating_point_v<std::remove_cvref_t<decltype(value)>>) {
              value = bad;
            } else {
              value = static_cast<std::remove_cvref_t<decltype(value)>>(-1);
            }
          });
          CAPTURE(changed, bad);
          const std::string sentence = refusal([&] { o.require("x"); });
          CHECK(sentence.rfind("plumb: x: option `", 0) == 0);
          CHECK(sentence.find(changed + "` is ") != std::string::npos);
          CHECK(refusal([&] { reflect::validate(o); }) != "(it was not refused)");
        }
      }
    }
  });
}

TEST_CASE("no mode takes a number that is none of its enumerators") {
  each_type(reflect::catalogue{}, [&]<class O>(std::type_identity<O>) {
    std::size_t modes = 0;
    O all{};
    reflect::for_each(all, [&](const char*, auto& value) { modes += std::is_enum_v<std::remove_cvref_t<decltype(value)>>; });
    for (std::size_t which = 0; which < modes; ++which) {
      O o{};
      std::size_t at = 0;
      std::string changed;
      reflect::for_each(o, [&](const char* name, auto& value) {
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_enum_v<T>)
          if (at++ == which) value = static_cast<T>(77), changed = name;
      });
      CAPTURE(reflect::name_of<O>, changed);
      const std::string said = refusal([&] { reflect::validate(o); });
      CHECK(said.find("option `" + changed + "`") != std::string::npos);
    }
  });
}
