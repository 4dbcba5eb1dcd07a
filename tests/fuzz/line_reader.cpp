// Any bytes as a text, as a gzip file, and packed into one: the lines are those that a plain loop finds.
#include "support/fuzz_readers.hpp"

namespace {

using namespace plumb_test;

struct lines {
  std::vector<std::string> text;
  int problems = 0;
};

lines lines_of(std::string_view bytes, std::size_t longest) {
  lines all;
  try {
    line_reader reader(input::from_memory(bytes), longest);
    for (auto status = reader.next(); status != line_status::end; status = reader.next()) {
      require(reader.line() > 0 &&
              reader.capacity() <= std::max<std::size_t>(longest + 2, 1 << 18) + line_reader::padding);
      if (status == line_status::line)
        all.text.emplace_back(reader.text());
      else
        ++all.problems;
    }
  } catch (const data_error&) {
    all.problems = -1;  // not opened
  }
  return all;
}

lines by_hand(std::string_view text, std::size_t longest) {
  lines all;
  for (bool first = true; !text.empty(); first = false) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.size() > longest) {
      ++all.problems;
      continue;
    }
    if (first && line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) all.text.emplace_back(line);
  }
  return all;
}

std::string pack(std::string_view text, int level) {
  z_stream z{};
  require(deflateInit2(&z, level, Z_DEFLATED, 9 + 16, 1, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&z, static_cast<uLong>(text.size())), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  require(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t longest = bytes[0] < 128 ? bytes[0] + 1u : 1u << 20;
  const std::size_t cut = bytes[1];
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 2, size - 2);

  const lines plain = lines_of(text, longest);
  const lines hand = by_hand(text, longest);
  if (!text.starts_with("\x1f\x8b") && plain.problems >= 0) {
    require(plain.text == hand.text);
    require(plain.problems == hand.problems);
  }
  lines_of(std::string("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10) + std::string(text), longest);

  // Packed in two members, parted anywhere: the same lines; cut off: the first of them.
  const std::size_t middle = text.size() * cut / 256;
  const std::string one = pack(text.substr(0, middle), 1), packed = one + pack(text.substr(middle), 6);
  const lines unpacked = lines_of(packed, longest);
  require(unpacked.text == hand.text && unpacked.problems == hand.problems);
  const std::size_t rest = std::max<std::size_t>(packed.size() * cut / 256, 2);
  if (rest == one.size()) return 0;  // one whole member is a whole file
  const lines part = lines_of(std::string_view(packed).substr(0, rest), longest);
  require(part.text.size() <= hand.text.size());
  require(std::equal(part.text.begin(), part.text.end(), hand.text.begin()));
  return 0;
}
