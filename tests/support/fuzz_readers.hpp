#pragma once
// What the fuzzers of the readers share: any bytes are read to the end, and what comes out obeys the laws.

#include <plumb/data/data.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace plumb_test {

using namespace plumb::data;

inline void require(bool law) {
  if (!law) __builtin_trap();
}

/// The first byte chooses options and whether the file ends early; the rest is the file.
template <class Reader, class Law>
void fuzz_reader(const std::uint8_t* bytes, std::size_t size, std::initializer_list<format> formats, const Law& law) {
  if (size == 0) return;
  const std::uint8_t choice = bytes[0];
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  read_options options{.on_error = on_error::skip, .max_line_bytes = (choice & 1) != 0 ? 200u : 1u << 20};
  const std::size_t which = (choice >> 1) % (formats.size() + 1);
  if (which > 0) options.format = formats.begin()[which - 1];
  if ((choice & 64) != 0) options.ratings = {"helpfulness", "honesty"};
  if ((choice & 128) != 0) options.pairing = pairing::best_and_random_lower;

  // Errors skipped: all is accounted for.
  std::vector<typename Reader::record> records;
  try {
    Reader reader(input::from_memory(text), options);
    while (auto r = reader.next()) {
      law(*r);
      require(r->line >= 1 && r->line <= reader.summary().lines);
      records.push_back(std::move(*r));
    }
    const read_summary s = reader.summary();
    require(s.records == static_cast<std::int64_t>(records.size()));
    require(s.first_errors.size() <= 5 && static_cast<std::int64_t>(s.first_errors.size()) <= s.errors);
    for (const std::string& e : s.first_errors)
      require(e.starts_with("plumb: (memory):") && e.ends_with(" read before it."));
    if (s.format == format::hh_rlhf || s.format == format::trl_preference || s.format == format::unpaired ||
        s.format == format::helpsteer2_preference)
      require(s.lines == s.records + s.dropped() + s.blank_lines + s.errors);
    require(!s.to_text().empty());
  } catch (const data_error& e) {
    require(e.line() == 0);  // only what is no text at all is not opened
    return;
  }

  // Errors thrown: the same records come out.
  options.on_error = on_error::stop;
  Reader reader(input::from_memory(text), options);
  std::size_t i = 0;
  for (;;) {
    try {
      const auto r = reader.next();
      if (!r) break;
      require(i < records.size() && r->line == records[i].line);
      ++i;
    } catch (const data_error& e) {
      require(e.line() >= 1 && std::strlen(e.what()) < 512);
    }
  }
  require(i == records.size());
}

}  // namespace plumb_test
