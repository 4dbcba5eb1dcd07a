#pragma once
// Opt-in: the options of every objective by name, through Boost.Hana. Print them, compare two configurations. No other header of plumb
// includes this one or Hana.

#include <plumb/plumb.hpp>

#include <boost/hana/accessors.hpp>
#include <boost/hana/adapt_struct.hpp>
#include <boost/hana/ext/std/integral_constant.hpp>
#include <boost/hana/first.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/second.hpp>
#include <boost/hana/string.hpp>
#include <boost/hana/unpack.hpp>

#include <cstdio>
#include <string>

BOOST_HANA_ADAPT_STRUCT(plumb::token_logp_options, temperature, softcap, logit_scale);
BOOST_HANA_ADAPT_STRUCT(plumb::linear_token_logp_options, logits, chunk_rows);
BOOST_HANA_ADAPT_STRUCT(plumb::bradley_terry_options, center_coefficient, denominator);
BOOST_HANA_ADAPT_STRUCT(plumb::attribute_regression_options, missing, denominator);
BOOST_HANA_ADAPT_STRUCT(plumb::goal_reward_options, mean, standard_deviation);
BOOST_HANA_ADAPT_STRUCT(plumb::supervised_options, aggregate, denominator);
BOOST_HANA_ADAPT_STRUCT(plumb::dpo_options, beta, label_smoothing, reference_free, denominator);

PLUMB_NAMESPACE_BEGIN

namespace reflect {

/// Options whose names are known here.
template <class T>
concept options = boost::hana::Struct<T>::value;

/// The shortest decimal number that reads back the same.
inline std::string to_text(double x) {
  char text[32];
  for (int digits = 1; digits <= 17; ++digits) {  // the shortest that reads back the same
    std::snprintf(text, sizeof text, "%.*g", digits, x);
    double back = 0;
    if (std::sscanf(text, "%lf", &back) == 1 && back == x) break;
  }
  return text;
}
/// In decimal.
inline std::string to_text(std::int64_t n) { return std::to_string(n); }
/// "true" or "false".
inline std::string to_text(bool b) { return b ? "true" : "false"; }
/// The enumerator's name.
inline std::string to_text(aggregation a) { return a == aggregation::token_mean ? "token_mean" : "sequence_mean"; }
template <options O>
std::string to_text(const O& o);

/// Calls `f(name, value)` for each option, in order; nested options are one value.
template <options O, class F>
void for_each(const O& o, F f) {
  boost::hana::for_each(boost::hana::accessors<O>(), [&](auto accessor) {
    f(boost::hana::to<const char*>(boost::hana::first(accessor)), boost::hana::second(accessor)(o));
  });
}

/// "{beta: 0.1, label_smoothing: 0, reference_free: false, denominator: 8}".
template <options O>
std::string to_text(const O& o) {
  std::string text;
  for_each(o, [&](const char* name, const auto& value) {
    text.append(text.empty() ? "{" : ", ").append(name).append(": ").append(to_text(value));
  });
  return text + "}";
}

/// "beta: 0.1 -> 0.2, denominator: 0 -> 8": what differs between two configurations; empty when nothing does.
template <options O>
std::string difference(const O& from, const O& to) {
  std::string text;
  boost::hana::for_each(boost::hana::accessors<O>(), [&](auto accessor) {
    const std::string a = to_text(boost::hana::second(accessor)(from)), b = to_text(boost::hana::second(accessor)(to));
    if (a == b) return;
    text.append(text.empty() ? "" : ", ").append(boost::hana::to<const char*>(boost::hana::first(accessor)));
    text.append(": ").append(a).append(" -> ").append(b);
  });
  return text;
}

}  // namespace reflect

PLUMB_NAMESPACE_END
