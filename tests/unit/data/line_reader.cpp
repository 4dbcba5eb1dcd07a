// Lines: ends, marks, gzip in all its forms, limits, and what it costs.
#include "support/allocations.hpp"
#include "support/data_files.hpp"

using namespace plumb::data;
using namespace plumb_test;

namespace {

struct lines {
  std::vector<std::string> text, problems;
  std::vector<std::int64_t> numbers;
  read_summary summary;
  std::size_t capacity = 0;
};

lines lines_in(const input& in, std::size_t longest = read_options{}.max_line_bytes) {
  lines all;
  line_reader reader(in, longest);
  for (auto status = reader.next(); status != line_status::end; status = reader.next()) {
    if (status == line_status::line) {
      all.text.emplace_back(reader.text());
      all.numbers.push_back(reader.line());
    } else {
      all.problems.push_back(std::to_string(reader.line()) + ": " + reader.problem());
    }
  }
  CHECK(reader.next() == line_status::end);
  reader.count(all.summary);
  all.capacity = reader.capacity();
  return all;
}
lines lines_of(std::string_view text, std::size_t longest = read_options{}.max_line_bytes) {
  return lines_in(input::from_memory(text), longest);
}
using strings = std::vector<std::string>;

}  // namespace

TEST_CASE("line_reader: ends of lines, blank lines, byte order mark") {
  CHECK(lines_of("a\nb\n").text == strings{"a", "b"});
  CHECK(lines_of("a\nb").text == strings{"a", "b"});
  CHECK(lines_of("").text.empty());
  CHECK(lines_of("\n\n\n").text.empty());
  const lines l = lines_of(
      "\xef\xbb\xbf"
      "a\r\n\r\n \t\nb\r\n\nc");
  CHECK(l.text == strings{"a", "b", "c"});
  CHECK(l.numbers == std::vector<std::int64_t>{1, 4, 6});
  CHECK(l.summary.lines == 6);
  CHECK(l.summary.blank_lines == 3);
  CHECK(l.summary.crlf_lines == 3);
  CHECK(l.summary.byte_order_mark);
  CHECK(l.summary.bytes == 16);
  CHECK(lines_of("a\n\xef\xbb\xbf"
                 "b")
            .text == strings{"a",
                             "\xef\xbb\xbf"
                             "b"});  // only at the very beginning
}

TEST_CASE("line_reader: from a file as from memory") {
  const data_folder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i)
    text += "line " + std::to_string(i) + std::string(static_cast<std::size_t>(i % 97), '.') + "\n";
  const lines from_memory = lines_of(text);
  REQUIRE(from_memory.text.size() == 20000);
  CHECK(from_memory.text[12345] == "line 12345" + std::string(12345 % 97, '.'));
  CHECK(lines_in(input(folder.write("plain", text))).text == from_memory.text);
  const lines packed = lines_in(input(folder.write("packed", gzip(text))));  // by content: the name says nothing
  CHECK(packed.text == from_memory.text);
  CHECK(packed.summary.gzip);
  CHECK(packed.summary.bytes == static_cast<std::int64_t>(text.size()));
  CHECK(packed.summary.bytes_stored == static_cast<std::int64_t>(gzip(text).size()));
  CHECK(lines_in(input(folder.write("plain.gz", text))).text == from_memory.text);
}

TEST_CASE("line_reader: gzip with several members, cut anywhere between lines or not, padded with zeros") {
  const std::string members = gzip("a\nb") + gzip("") + gzip("c\nd\n") + gzip("e");
  CHECK(lines_of(members).text == strings{"a", "bc", "d", "e"});
  CHECK(lines_of(members + std::string(1000, '\0')).text == strings{"a", "bc", "d", "e"});
  CHECK(lines_of(gzip("")).text.empty());
  const lines garbage = lines_of(gzip("a\nb\n") + "garbage");
  CHECK(garbage.text == strings{"a", "b"});
  CHECK(garbage.problems == strings{"3: after the end of the gzip data come bytes that are not gzip"});
}

TEST_CASE("line_reader: gzip that is cut off at any byte gives a prefix of the lines, then a sentence") {
  const std::string text = "first line\nsecond line\nthird line\n", whole = gzip(text);
  for (std::size_t n = 2; n < whole.size(); ++n) {
    CAPTURE(n);
    const lines l = lines_of(std::string_view(whole).substr(0, n));
    REQUIRE(l.problems.size() == 1);
    CHECK(l.problems[0] == std::to_string(l.text.size() + 1) + ": the gzip data end too early: the file is cut off");
    const strings all{"first line", "second line", "third line"};
    CHECK(std::equal(l.text.begin(), l.text.end(), all.begin()));
  }
  std::string damaged = whole;
  damaged[damaged.size() - 6] = static_cast<char>(damaged[damaged.size() - 6] ^ 1);  // in the check sum
  const lines l = lines_of(damaged);
  CHECK(l.text.size() == 3);
  CHECK(l.problems == strings{"4: the gzip data are damaged: incorrect data check"});
}

TEST_CASE("line_reader: lines as long as allowed, and longer ones") {
  const std::string ten(10, 'x'), eleven(11, 'y'), long_one(1000, 'z');
  for (const std::string end : {"\n", "\r\n"}) {
    const lines l = lines_of(ten + end + eleven + end + "a" + end + long_one + end + "b" + end + ten, 10);
    CHECK(l.text == strings{ten, "a", "b", ten});
    REQUIRE(l.problems.size() == 2);
    CHECK(l.problems[0] == "2: the line has 11 bytes, more than option `max_line_bytes` allows (10)");
    CHECK(l.numbers == std::vector<std::int64_t>{1, 3, 5, 6});
  }
  CHECK(lines_of(long_one, 10).problems ==
        strings{"1: the line has 1000 bytes, more than option `max_line_bytes` allows (10)"});
  CHECK(complaint([] { line_reader(input::from_memory(""), 0); }) ==
        "plumb: line_reader: option `max_line_bytes` is 0 but must be from 1 to 4000000000. Nothing was written.");
}

TEST_CASE("line_reader: a line of 100 MB is passed over in the memory that is allowed") {
  std::string text = "before\n";
  text.append(std::size_t{100} << 20, 'x');
  text += "\nafter\n";
  constexpr std::size_t longest = std::size_t{1} << 20;
  const lines l = lines_of(text, longest);
  CHECK(l.text == strings{"before", "after"});
  CHECK(l.problems == strings{"2: the line has 104857600 bytes, more than option `max_line_bytes` allows (1048576)"});
  CHECK(l.capacity <= longest + 128);
  const lines packed = lines_of(gzip(text), longest);
  CHECK(packed.text == l.text);
  CHECK(packed.problems == l.problems);
  CHECK(packed.capacity <= longest + 128);
}

TEST_CASE("line_reader: memory grows with the longest line, not with the file, and lines allocate nothing") {
  std::string text;
  for (int i = 0; i < 100000; ++i) text += std::string(100, 'x') + "\n";
  line_reader reader(input::from_memory(text));
  REQUIRE(reader.next() == line_status::line);
  const auto before = allocations();
  const auto capacity = reader.capacity();
  while (reader.next() == line_status::line) continue;
  CHECK(allocations() == before);
  CHECK(reader.capacity() == capacity);
  CHECK(capacity < text.size() / 20);
}

TEST_CASE("line_reader: files that cannot be opened, or are something else") {
  const data_folder folder;
  const auto opening = [](const std::string& path) { return complaint([&] { line_reader reader{input(path)}; }); };
  CHECK(opening("/nonexistent/file.jsonl") ==
        "plumb: /nonexistent/file.jsonl: cannot be opened: No such file or directory.");
  CHECK(opening(folder.path.string()) == "plumb: " + folder.path.string() + ": cannot be read: Is a directory.");
  const auto unreadable = folder.write("unreadable", "{}");
  std::filesystem::permissions(unreadable, std::filesystem::perms::none);
  if (geteuid() != 0) CHECK(opening(unreadable) == "plumb: " + unreadable + ": cannot be opened: Permission denied.");
  using Catch::Matchers::EndsWith;
  CHECK_THAT(opening(folder.write("a", "\x28\xb5\x2f\xfd...")),
             EndsWith("is a zstd file; plain text and gzip are read."));
  CHECK_THAT(opening(folder.write("b",
                                  "\xfd"
                                  "7zXZ...")),
             EndsWith("is a xz file; plain text and gzip are read."));
  CHECK_THAT(opening(folder.write("c", "PAR1...")), EndsWith("is a Parquet file; plain text and gzip are read."));
  // The end of a long path is kept, and the sentence is whole.
  const std::string sentence = opening("/" + std::string(3000, 'd') + "/name.jsonl");
  CHECK_THAT(sentence, Catch::Matchers::StartsWith("plumb: ...ddd"));
  CHECK_THAT(sentence, EndsWith("/name.jsonl: cannot be opened: File name too long."));
}
