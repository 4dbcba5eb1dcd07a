#pragma once
// Presets in words: printed, compared, checked part by part; included by reflect.hpp.

#include <plumb/reflect.hpp>

PLUMB_NAMESPACE_BEGIN

namespace reflect {

namespace detail {
inline std::string under(const char* name, std::string text) { return text.empty() ? text : std::string(name).append(" ").append(text); }
inline std::string joined(std::initializer_list<std::string> parts) {
  std::string text;
  for (const std::string& p : parts)
    if (!p.empty()) text.append(text.empty() ? "" : "; ").append(p);
  return text;
}
}  // namespace detail

/// A preset in words: its link, divergence and options.
inline std::string to_text(const presets::pair_loss& p) {
  return detail::joined({to_text(p.link), to_text(p.divergence), to_text(p.options)});
}
/// Likewise: its surrogate and options.
inline std::string to_text(const presets::policy& p) { return detail::joined({to_text(p.surrogate), to_text(p.options)}); }
/// What differs between two presets, part by part: "surrogate dual: 0 -> 3; options log_ratio_low: 0 -> 20, log_ratio_high: 0 -> 20".
inline std::string difference(const presets::pair_loss& from, const presets::pair_loss& to) {
  return detail::joined({detail::under("link", difference(from.link, to.link)), detail::under("divergence", difference(from.divergence, to.divergence)),
                         detail::under("options", difference(from.options, to.options))});
}
/// See above.
inline std::string difference(const presets::policy& from, const presets::policy& to) {
  return detail::joined({detail::under("surrogate", difference(from.surrogate, to.surrogate)), detail::under("options", difference(from.options, to.options))});
}
/// Checks every part.
inline void validate(const presets::pair_loss& p) {
  validate(p.link);
  validate(p.divergence);
  validate(p.options);
}
/// Checks every part.
inline void validate(const presets::policy& p) {
  validate(p.surrogate);
  validate(p.options);
}

}  // namespace reflect

PLUMB_NAMESPACE_END
