// The lab's files: checkpoints that come back bit by bit, sentences for those that cannot be read, figures as JSON, nothing half written.
#include "lab/stages.hpp"
#include "support/catch.hpp"

#include <plumb/backends/serial.hpp>

#include <fstream>

namespace {

using B = plumb::serial::backend<float>;
namespace fs = std::filesystem;

const lab::transformer_config config{.vocabulary = 7, .width = 8, .layers = 1, .heads = 2, .feed_forward = 12, .positions = 9};

/// A folder that goes away.
struct folder {
  fs::path path = fs::temp_directory_path() / ("plumb_lab_test_" + std::to_string(getpid()));
  folder() { fs::create_directories(path); }
  ~folder() { fs::remove_all(path); }
};
std::string bytes_of(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
void write(const fs::path& p, const std::string& bytes) { std::ofstream(p, std::ios::binary) << bytes; }
std::string complaint(const fs::path& p) {
  lab::transformer<B> model(config, 2);
  const auto before = model.weights();
  try {
    lab::load_checkpoint(p, model);
  } catch (const std::exception& e) {
    CHECK(model.weights() == before);
    return e.what();
  }
  return "(read)";
}

}  // namespace

TEST_CASE("lab: a checkpoint comes back bit by bit") {
  const folder f;
  const auto file = f.path / "deep" / "model.safetensors";
  const lab::transformer<B> saved(config, 1);
  lab::save_checkpoint(file, saved);
  lab::transformer<B> loaded(config, 2);
  CHECK(loaded.weights() != saved.weights());
  lab::load_checkpoint(file, loaded);
  CHECK(loaded.weights() == saved.weights());
  CHECK(!fs::exists(file.string() + ".part"));
}

TEST_CASE("lab: a checkpoint is laid out as the safetensors format says") {
  const folder f;
  const auto file = f.path / "model.safetensors";
  const lab::transformer<B> model(config, 1);
  lab::save_checkpoint(file, model);
  const std::string bytes = bytes_of(file);
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  CHECK(length % 8 == 0);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  std::uint64_t end = 0;
  for (const auto& [name, tensor] : header.items()) {
    if (name == "__metadata__") continue;
    CHECK(tensor["dtype"] == "F32");
    std::uint64_t count = 4;
    for (const std::uint64_t e : tensor["shape"]) count *= e;
    CHECK(tensor["data_offsets"][1].get<std::uint64_t>() - tensor["data_offsets"][0].get<std::uint64_t>() == count);
    end = std::max(end, tensor["data_offsets"][1].get<std::uint64_t>());
  }
  CHECK(8 + length + end == bytes.size());
  CHECK(header["model.layers.0.self_attn.q_proj.weight"]["shape"] == nlohmann::json{8, 8});
  CHECK(header["model.norm.weight"]["shape"] == nlohmann::json{8});
  CHECK(header["__metadata__"]["architecture"] == "llama");
}

TEST_CASE("lab: a checkpoint that cannot be read changes nothing and says why") {
  const folder f;
  const auto file = f.path / "model.safetensors", bad = f.path / "bad.safetensors";
  lab::save_checkpoint(file, lab::transformer<B>(config, 1));
  const std::string good = bytes_of(file);
  CHECK(complaint(f.path / "none") == (f.path / "none").string() + ": cannot be opened");
  write(bad, "abc");
  CHECK(complaint(bad) == bad.string() + ": is too short for a safetensors file");
  write(bad, good.substr(0, 100));
  CHECK(complaint(bad) == bad.string() + ": its header is longer than the file");
  write(bad, good.substr(0, good.size() - 4));
  CHECK(complaint(bad) == bad.string() + ": tensor \"lm_head.weight\" lies outside the file");
  auto broken = good;
  broken[8] = 'x';
  write(bad, broken);
  CHECK(complaint(bad) == bad.string() + ": its header is no JSON object");
  broken = good;
  broken.replace(broken.find("lm_head"), 7, "lm_tail");
  write(bad, broken);
  CHECK(complaint(bad) == bad.string() + ": has no tensor \"lm_head.weight\"");
  broken = good;
  broken.replace(broken.find("[7,8]"), 5, "[8,7]");
  write(bad, broken);
  CHECK(complaint(bad) == bad.string() + ": tensor \"model.embed_tokens.weight\" is not F32 of shape [7,8]");
}

TEST_CASE("lab: a summary holds every figure, null where there is no interval") {
  const folder f;
  lab::summary s{.demo = "lab", .backend = "serial", .seeds = {3}, .threads = 2, .seconds = 1.5};
  s.figures.push_back(lab::rate_figure("win_rate", 60, 100));
  s.figures.push_back({"ceiling", 0.8, {}, {}, 100, "share"});
  s.write(f.path / "summary.json");
  const auto j = nlohmann::json::parse(bytes_of(f.path / "summary.json"));
  CHECK(j["demo"] == "lab");
  CHECK(j["seeds"] == nlohmann::json{3});
  CHECK(j["figures"][0]["name"] == "win_rate");
  CHECK(j["figures"][1]["low"].is_null());
  CHECK(j["figures"][1]["n"] == 100);
}

TEST_CASE("lab: intervals") {
  // Wilson's interval of 60 in 100 (e.g. Newcombe 1998): 0.502 to 0.691.
  const auto w = lab::rate_figure("x", 60, 100);
  CHECK(w.value == 0.6);
  CHECK(*w.low == Catch::Approx(0.5020).margin(5e-5));
  CHECK(*w.high == Catch::Approx(0.6906).margin(5e-5));
  const auto m = lab::mean_figure("x", {1, 2, 3, 4}, "points");
  CHECK(m.value == 2.5);
  CHECK(*m.high - m.value == Catch::Approx(1.959964 * std::sqrt(5.0 / 3 / 4)).epsilon(1e-12));
}

TEST_CASE("lab: figures over seeds") {
  const auto one = [](double x) { return std::vector<lab::figure>{{"rate", x, {}, {}, 10, "share", "the rate"}}; };
  CHECK(lab::over_seeds({{7, one(0.5)}}).size() == 1);
  const auto three = lab::over_seeds({{1, one(0.5)}, {2, one(0.6)}, {3, one(0.7)}});
  REQUIRE(three.size() == 4);
  CHECK(three[0].name == "rate");
  CHECK(three[0].n == 3);
  CHECK(three[0].value == Catch::Approx(0.6));
  CHECK(*three[0].high - three[0].value == Catch::Approx(4.3027 * 0.1 / std::sqrt(3.0)).epsilon(1e-5));  // Student's t, two degrees
  CHECK(three[2].name == "seed 2/rate");
  CHECK(lab::student_t(10) == Catch::Approx(2.2281));
  CHECK(lab::student_t(11) == Catch::Approx(2.2010).margin(1e-3));
  CHECK(lab::student_t(100) == Catch::Approx(1.9840).margin(1e-3));
}

TEST_CASE("lab: a stage is done once, and again only for another program, other settings or --fresh") {
  const folder f;
  int made = 0, loaded = 0;
  const auto run = [&](const char* settings, bool fresh) {
    lab::run_folder r(f.path / "seed-1", settings, fresh);
    made = loaded = 0;
    for (const char* stage : {"one", "two"}) r.once(stage, [&] { ++loaded; }, [&] { ++made; });
  };
  run("a", false);
  CHECK(made == 2);
  run("a", false);
  CHECK(loaded == 2);
  run("a", true);
  CHECK(made == 2);
  run("b", false);
  CHECK(made == 2);
  CHECK(fs::exists(f.path / "seed-1.old2" / "run.json"));
  // What fails leaves the stage to be done.
  lab::run_folder r(f.path / "seed-1", "b", false);
  CHECK_THROWS(r.once("three", [] {}, [] { throw std::runtime_error("cut off"); }));
  lab::run_folder again(f.path / "seed-1", "b", false);
  CHECK(again.done("two"));
  CHECK(!again.done("three"));
  // What was left behind and cannot be read says where it is from.
  CHECK_THROWS_WITH(again.once("two", [] { throw std::runtime_error("two.json: cannot be read"); }, [] {}),
                    "two.json: cannot be read (left by stage \"two\"; --fresh starts over)");
}

TEST_CASE("lab: findings come back as they were") {
  const folder f;
  lab::findings out;
  out.figures = {lab::rate_figure("win_rate", 60, 100, "wins"), {"nothing", std::nan(""), {}, {}, 0, "", ""}, {"third", 1.0 / 3, {}, {}, 7, "nats", "a third"}};
  out.examples = {{"where ?", {{"SFT", "there \"quoted\" .", 3.25, "answers rightly"}, {"file", "no score", {}, ""}}}};
  lab::save(f.path / "x.json", out);
  const auto in = lab::load_findings(f.path / "x.json");
  REQUIRE(in.figures.size() == 3);
  CHECK(in.figures[0].value == out.figures[0].value);
  CHECK(in.figures[0].low == out.figures[0].low);
  CHECK(in.figures[0].label == "wins");
  CHECK(std::isnan(in.figures[1].value));
  CHECK(in.figures[2].value == 1.0 / 3);
  REQUIRE(in.examples.size() == 1);
  CHECK(in.examples[0].replies[0].text == "there \"quoted\" .");
  CHECK(in.examples[0].replies[0].score == 3.25);
  CHECK(!in.examples[0].replies[1].score);
  write(f.path / "bad.json", "{");
  CHECK_THROWS_WITH(lab::load_findings(f.path / "bad.json"), (f.path / "bad.json").string() + ": cannot be read");
}
