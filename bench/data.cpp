// Reading preference data: MB/s of JSONL text on one core, each format beside the JSON library alone (simdjson's DOM
// parser on the same lines, already cut), files beside memory, and gzip beside zlib's bare inflate.

#include <plumb/data/data.hpp>

#include <benchmark/benchmark.h>

#include <zlib.h>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace plumb::data;

constexpr std::size_t text_bytes = std::size_t{32} << 20;

/// Words with a JSON escape now and then, as in real replies.
std::string words(std::uint64_t seed, std::size_t bytes) {
  static constexpr const char* vocabulary[] = {"the ",
                                               "model ",
                                               "answers ",
                                               "a question ",
                                               "politely, ",
                                               "and ",
                                               "then\\n\\n",
                                               "it ",
                                               "stops. ",
                                               "\\\"No\\\" ",
                                               "d\xc3\xa9j\xc3\xa0 vu ",
                                               "again ",
                                               "of "};
  const plumb::random_stream random{seed, 1};
  std::string out;
  for (std::uint64_t i = 0; out.size() < bytes; ++i) out += vocabulary[random.below(std::size(vocabulary), i)];
  return out;
}
std::string field(const char* key, const std::string& value) {
  return std::string("\"") + key + "\": \"" + value + '"';
}
std::string chat(const char* key, const std::string& reply) {
  return std::string("\"") + key + R"(": [{"role": "assistant", )" + field("content", reply) + "}]";
}

/// One line, or two where the format has pairs of lines.
std::string lines_of(const std::string& name, std::uint64_t i) {
  const std::string prompt = words(3 * i, 500), one = words(3 * i + 1, 300 + i % 200),
                    two = words(3 * i + 2, 300 + i % 170);
  if (name == "hh_rlhf") {
    const std::string shared = R"(\n\nHuman: )" + prompt + R"(\n\nAssistant: )";
    return "{" + field("chosen", shared + one) + ", " + field("rejected", shared + two) + "}\n";
  }
  if (name == "trl_preference")
    return "{" + field("prompt", prompt) + ", " + field("chosen", one) + ", " + field("rejected", two) + "}\n";
  if (name == "trl_preference_chat")
    return R"({"prompt": [{"role": "user", )" + field("content", prompt) + "}], " + chat("chosen", one) + ", " +
           chat("rejected", two) + "}\n";
  if (name == "unpaired")
    return "{" + field("prompt", prompt) + ", " + field("completion", one) + ", \"label\": true}\n";
  if (name == "helpsteer2") {
    const std::string ratings = R"(, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2)";
    return "{" + field("prompt", prompt) + ", " + field("response", one) + R"(, "helpfulness": 3)" + ratings + "}\n{" +
           field("prompt", prompt) + ", " + field("response", two) + R"(, "helpfulness": 1)" + ratings + "}\n";
  }
  if (name == "helpsteer2_preference")
    return "{" + field("prompt", prompt) + ", " + field("response_1", one) + ", " + field("response_2", two) +
           R"(, "preference_strength": -2})" + "\n";
  const std::string annotations = R"(, "annotations": {"helpfulness": {"Rating": "4"}, "honesty": {"Rating": "5"}}})";
  return "{" + field("instruction", prompt) + R"(, "completions": [{)" + field("response", one) +
         R"(, "overall_score": 7.5)" + annotations + ", {" + field("response", two) + R"(, "overall_score": 4)" +
         annotations + "]}\n";
}

std::string text_of(const std::string& name) {
  std::string text;
  for (std::uint64_t i = 0; text.size() < text_bytes; ++i) text += lines_of(name, i);
  return text;
}

/// Of processor time, as Google Benchmark's rates are; the best of five.
template <class F>
double seconds(const F& f) {
  double best = 1e300;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t start = std::clock();
    f();
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return best;
}

double bare_parse(const std::string& text) {
  std::vector<std::string_view> lines;
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(rest.find('\n') + 1))
    lines.push_back(rest.substr(0, rest.find('\n')));
  std::string padded = text;
  padded.reserve(text.size() + simdjson::SIMDJSON_PADDING);
  return seconds([&] {
    simdjson::dom::parser parser;
    for (const std::string_view line : lines) {
      simdjson::dom::element e;
      if (parser.parse(padded.data() + (line.data() - text.data()), line.size(), false).get(e) != simdjson::SUCCESS)
        std::abort();
      benchmark::DoNotOptimize(e);
    }
  });
}

void report(benchmark::State& state, std::size_t bytes, const char* beside, double seconds_beside) {
  const double megabytes = static_cast<double>(bytes) * 1e-6;
  state.counters["MB/s"] = benchmark::Counter(megabytes, benchmark::Counter::kIsIterationInvariantRate);
  if (beside != nullptr) state.counters[beside] = megabytes / seconds_beside;
}

template <class Reader>
std::size_t drain(const input& in) {
  Reader reader(in);
  std::size_t bytes = 0;
  while (auto record = reader.next()) bytes += record->prompt.text.size() + record->prompt.turns.size();
  if (reader.summary().records == 0) std::abort();
  return bytes;
}

template <class Reader>
void from_memory(benchmark::State& state, const std::string& name) {
  const std::string text = text_of(name);
  for (auto _ : state) benchmark::DoNotOptimize(drain<Reader>(input::from_memory(text)));
  report(state, text.size(), "simdjson DOM MB/s", bare_parse(text));
}

std::string temporary_file(const std::string& bytes) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/plumb_bench_XXXXXX";
  const int descriptor = mkstemp(path.data());
  std::FILE* f = descriptor >= 0 ? fdopen(descriptor, "wb") : nullptr;
  if (f == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), f) != bytes.size() || std::fclose(f) != 0)
    std::abort();
  return path;
}

void from_file(benchmark::State& state) {
  const std::string text = text_of("hh_rlhf"), path = temporary_file(text);
  for (auto _ : state) benchmark::DoNotOptimize(drain<preference_reader>(path));
  std::remove(path.c_str());
  report(state, text.size(), nullptr, 0);
}

void from_gzip(benchmark::State& state) {
  const std::string text = text_of("hh_rlhf");
  std::string packed(text.size(), '\0');
  z_stream z{};
  if (deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) std::abort();
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  if (deflate(&z, Z_FINISH) != Z_STREAM_END) std::abort();
  packed.resize(z.total_out);
  deflateEnd(&z);
  for (auto _ : state) benchmark::DoNotOptimize(drain<preference_reader>(input::from_memory(packed)));
  std::string unpacked(text.size(), '\0');
  report(state, text.size(), "zlib inflate MB/s", seconds([&] {
           z_stream y{};
           if (inflateInit2(&y, 15 + 16) != Z_OK) std::abort();
           y.next_in = reinterpret_cast<Bytef*>(packed.data());
           y.avail_in = static_cast<uInt>(packed.size());
           y.next_out = reinterpret_cast<Bytef*>(unpacked.data());
           y.avail_out = static_cast<uInt>(unpacked.size());
           if (inflate(&y, Z_FINISH) != Z_STREAM_END) std::abort();
           inflateEnd(&y);
         }));
}

void lines_alone(benchmark::State& state) {
  const std::string text = text_of("hh_rlhf");
  for (auto _ : state) {
    line_reader lines(input::from_memory(text));
    while (lines.next() == line_status::line) benchmark::DoNotOptimize(lines.text());
  }
  report(state, text.size(), nullptr, 0);
}

template <class F>
void add(const char* name, const F& run) {
  benchmark::RegisterBenchmark(name, run)->Unit(benchmark::kMillisecond);
}
template <class Reader>
void add_format(const char* name, const char* lines) {
  add(name, [lines](benchmark::State& state) { from_memory<Reader>(state, lines); });
}

const int registered = [] {
  add("data/lines alone", lines_alone);
  add_format<preference_reader>("data/hh_rlhf", "hh_rlhf");
  add("data/hh_rlhf, from a file", from_file);
  add("data/hh_rlhf, gzip", from_gzip);
  add_format<preference_reader>("data/trl_preference", "trl_preference");
  add_format<preference_reader>("data/trl_preference, chat", "trl_preference_chat");
  add_format<unpaired_reader>("data/unpaired", "unpaired");
  add_format<rating_reader>("data/helpsteer2, ratings", "helpsteer2");
  add_format<preference_reader>("data/helpsteer2, pairs", "helpsteer2");
  add_format<preference_reader>("data/helpsteer2_preference", "helpsteer2_preference");
  add_format<preference_reader>("data/ultrafeedback, pairs", "ultrafeedback");
  add_format<rating_reader>("data/ultrafeedback, ratings", "ultrafeedback");
  return 0;
}();

}  // namespace
