// The lab's files: checkpoints that come back bit by bit, sentences for those that cannot be read, figures as JSON, nothing half written.
#include "lab/stages.hpp"
#include "lab/world.hpp"
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
  const auto two = lab::over_seeds({{1, one(0.5)}, {2, one(0.6)}});
  CHECK(two[0].value == Catch::Approx(0.55));
  CHECK(!two[0].low);  // of two, an interval would be as wide as everything
  CHECK(*lab::over_seeds({{1, one(0)}, {2, one(1)}, {3, one(0.9)}})[0].high == 1);  // a share is not above all
  const auto count = [](double x) { return std::vector<lab::figure>{{"peak", x, {}, {}, 10, "replies", "peak"}}; };
  const auto counts = lab::over_seeds({{1, count(64)}, {2, count(8)}, {3, count(16)}});
  CHECK(counts[0].value == 16);
  CHECK(counts[0].label == "peak, median; by seed: 64, 8, 16");
  CHECK(lab::over_seeds({{1, count(2)}, {2, count(4)}})[0].value == 3);
  CHECK(!lab::over_seeds({{1, one(0.5)}, {2, one(0.6)}, {3, one(0.7)}}, false)[0].low);
  CHECK(lab::over_seeds({{1, one(0.5)}, {2, {}}}).size() == 1);  // what was not measured for all has no mean
  CHECK(lab::student_t(10) == Catch::Approx(2.2281));
  CHECK(lab::student_t(11) == Catch::Approx(2.2010).margin(1e-3));
  CHECK(lab::student_t(100) == Catch::Approx(1.9840).margin(1e-3));
}

TEST_CASE("lab: intervals of what comes in clusters") {
  // Four clusters of two, alike within: worth half as many. Sums minus size times mean are -1, -1, 1, 1: variance 4 * (4/3) / 64.
  const std::vector<double> x{0, 0, 0, 0, 1, 1, 1, 1};
  const std::vector<std::size_t> pairs{0, 0, 1, 1, 2, 2, 3, 3}, alone{0, 1, 2, 3, 4, 5, 6, 7};
  CHECK(lab::clustered_variance(x, pairs) == Catch::Approx(4.0 * 4 / 3 / 64));
  CHECK(lab::clustered_variance(x, alone) == Catch::Approx(0.25 / 8 * 8 / 7));  // the usual variance of a mean
  const auto wide = lab::clustered_rate_figure("x", x, pairs), narrow = lab::clustered_rate_figure("x", x, alone);
  CHECK(*wide.low < *narrow.low);
  CHECK(wide.n == 8);
  const auto plain = lab::rate_figure("x", 4, 8, "", 0.25 / (4.0 * 4 / 3 / 64));  // Wilson's interval for 3 independent ones
  CHECK(*wide.low == Catch::Approx(*plain.low));
  CHECK(*wide.high == Catch::Approx(*plain.high));
  // All right: as many as there are clusters, and no interval of width zero.
  const auto all = lab::clustered_rate_figure("x", {1, 1, 1, 1, 1, 1, 1, 1}, pairs);
  CHECK(*all.low == Catch::Approx(*lab::rate_figure("x", 4, 4).low));
  CHECK(*all.high == Catch::Approx(1));
  const auto mean = lab::clustered_mean_figure("x", x, pairs, "difference of shares");
  CHECK(*mean.low == Catch::Approx(0.5 - 3.1824 * std::sqrt(1.0 / 12)));  // Student's t, three degrees
  CHECK(*mean.high == 1);                                                   // a difference of shares is no larger
  CHECK(!lab::clustered_mean_figure("x", {0, 0, 0}, {0, 1, 2}, "").low);
  CHECK(!lab::clustered_mean_figure("x", {0, 1}, {0, 0}, "").low);  // one cluster tells no variance
  CHECK(!lab::clustered_mean_figure("x", {0.1, 0.2, 0.3, 0.3, 0.2, 0.1}, {0, 0, 0, 1, 1, 1}, "").low);  // zero but for rounding
  // Of noise in few clusters, one in twenty is told apart from zero, no more.
  lab::world_random random(5, 1);
  for (const std::size_t clusters : {3u, 10u}) {
    int told = 0;
    for (int trial = 0; trial < 4000; ++trial) {
      std::vector<double> noise;
      std::vector<std::size_t> of;
      for (std::size_t c = 0; c < clusters; ++c) {
        const double shared = random.normal();
        for (int i = 0; i < 4; ++i) noise.push_back(0.1 * (shared + random.normal())), of.push_back(c);
      }
      const auto f = lab::clustered_mean_figure("x", noise, of, "");
      told += *f.low > 0 || *f.high < 0;
    }
    CHECK(told > 120);
    CHECK(told < 280);  // 200 expected, deviation 14
  }
}

TEST_CASE("lab: a stage is done once, and again only for another program, other settings or --fresh") {
  const folder f;
  std::vector<std::string> made, loaded;
  const auto put = [](const fs::path& file) { write(file, "left by " + file.filename().string()); };
  const auto run = [&](const char* settings, bool fresh) {
    lab::run_folder r(f.path / "seed-1", settings, fresh);
    made.clear(), loaded.clear();
    for (const char* stage : {"one", "two"})
      r.once(stage, ".txt", [&](const fs::path&) { loaded.push_back(stage); }, [&](const fs::path& file) { put(file), made.push_back(stage); });
  };
  using list = std::vector<std::string>;
  run("a", false);
  CHECK(made == list{"one", "two"});
  run("a", false);
  CHECK(loaded == list{"one", "two"});
  run("a", true);
  CHECK(made == list{"one", "two"});
  run("b", false);
  CHECK(made == list{"one", "two"});
  CHECK(fs::exists(f.path / "seed-1.old2" / "run.json"));
  // What fails leaves the stage to be done.
  {
    lab::run_folder r(f.path / "seed-1", "b", false);
    CHECK_THROWS(r.once("three", ".txt", [](const fs::path&) {}, [](const fs::path&) { throw std::runtime_error("cut off"); }));
    CHECK_THROWS_WITH(r.once("four", ".txt", [](const fs::path&) {}, [](const fs::path&) {}), "cannot read back " + (f.path / "seed-1" / "four.txt").string());
    lab::run_folder again(f.path / "seed-1", "b", false);
    CHECK(again.done("two"));
    CHECK(!again.done("three"));
    CHECK(!again.done("four"));
  }
  // A file that is gone or was changed costs its own stage alone; so does a line of run.json that says too little.
  write(f.path / "seed-1" / "one.txt", "left by one.tx!");
  run("b", false);
  CHECK(made == list{"one"});
  CHECK(loaded == list{"two"});
  fs::remove(f.path / "seed-1" / "two.txt");
  run("b", false);
  CHECK(made == list{"two"});
  auto json = nlohmann::json::parse(bytes_of(f.path / "seed-1" / "run.json"));
  json["stages"]["one"] = 3;
  write(f.path / "seed-1" / "run.json", json.dump());
  run("b", false);
  CHECK(made == list{"one"});
  CHECK(loaded == list{"two"});
  // A run.json that cannot be read is moved away with the rest.
  for (const char* broken : {"{\"stages\"", "[]", "{\"program\": 3, \"settings\": [], \"stages\": {}}", "{\"program\": \"x\", \"settings\": \"b\", \"stages\": 3}"}) {
    write(f.path / "seed-1" / "run.json", broken);
    run("b", false);
    CHECK(made == list{"one", "two"});
  }
}

TEST_CASE("lab: a folder has one run at a time") {
  const folder f;
  {
    const lab::folder_lock first(f.path / "out");
    CHECK_THROWS_WITH(lab::folder_lock(f.path / "out"),
                      "another run is at work in " + (f.path / "out").string() + "; wait for it, or name another folder with --out");
  }
  CHECK_NOTHROW(lab::folder_lock(f.path / "out"));
  write(f.path / "file", "");
  CHECK_THROWS_WITH(lab::folder_lock(f.path / "file" / "out"), Catch::Matchers::StartsWith("cannot make the folder "));
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
