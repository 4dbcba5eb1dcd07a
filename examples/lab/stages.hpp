#pragma once
// Stages that are done once: a run that was cut off, anywhere, goes on after the last stage that it finished, to the same figures.

#include "files.hpp"
#include "progress.hpp"
#include "settings.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace lab {

/// Hash of a file (FNV-1a), to tell whether it is the same as before; nothing where it cannot be read.
inline std::optional<std::uint64_t> file_fingerprint(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::uint64_t h = 1469598103934665603u;
  std::vector<char> piece(std::size_t{1} << 20);
  do {
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    for (std::streamsize i = 0; i < in.gcount(); ++i) h = (h ^ static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])) * 1099511628211u;
  } while (in);
  if (in.bad()) return std::nullopt;
  return h;
}

/// Says which program this is, so that stages of an older build are not taken for its own.
inline std::string this_program() {
  std::string name = std::to_string(PLUMB_VERSION_MAJOR) + "." + std::to_string(PLUMB_VERSION_MINOR) + "." + std::to_string(PLUMB_VERSION_PATCH);
  if (const auto own = file_fingerprint("/proc/self/exe")) name.append("-").append(std::to_string(*own));  // Linux; elsewhere the version alone
  return name;
}

/// Keeps every other run out of a folder until it is destroyed, or the process dies.
class folder_lock {
 public:
  explicit folder_lock(const std::filesystem::path& folder) {
    make_folder(folder);
    const std::string file = (folder / ".lock").string();
    file_ = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (file_ < 0) throw std::runtime_error("cannot write " + file + ": " + std::strerror(errno));
    int why = 0;
    for (int tries = 0; tries < 20; ++tries) {  // a run that was just killed takes a moment to be gone
      if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
      if ((why = errno) != EWOULDBLOCK) break;
      ::usleep(100000);
    }
    ::close(file_);
    if (why != EWOULDBLOCK) throw std::runtime_error("cannot lock " + file + ": " + std::strerror(why));
    throw std::runtime_error("another run is at work in " + folder.string() + "; wait for it, or name another folder with --out");
  }
  ~folder_lock() { ::close(file_); }
  folder_lock(const folder_lock&) = delete;
  folder_lock& operator=(const folder_lock&) = delete;

 private:
  int file_ = -1;
};

/// The folder of one run. `run.json` names the program, the settings and the stages that are finished, each with the file that it left, the
/// file's hash, and the seconds that it took. It is written after the file, so a stage that is named there is whole.
class run_folder {
 public:
  /// Goes on with what is there when it comes from the same program and settings; a stage whose file is gone or was changed is done again, to
  /// the same numbers, and no other. From another program or settings, or when `fresh`, what is there is moved to `<folder>.old`, or `.old2`
  /// and so on: nothing is lost.
  run_folder(std::filesystem::path folder, const std::string& settings, bool fresh) : folder_(std::move(folder)) {
    const std::string program = this_program();
    if (std::ifstream in(folder_ / "run.json"); in) {
      const auto before = nlohmann::json::parse(in, nullptr, false);
      const bool whole = before.is_object() && before.contains("program") && before.contains("settings") && before.contains("stages") && before["stages"].is_object();
      if (fresh) {
        move_away("");
      } else if (!whole) {
        move_away(", since run.json there cannot be read");
      } else if (before["program"] != program || before["settings"] != settings) {
        move_away(", since the program, the settings, the number of threads or the preference file is another");
      } else {
        for (const auto& [name, stage] : before["stages"].items()) take_over(name, stage);
      }
    }
    run_ = {{"program", program}, {"settings", settings}, {"stages", nlohmann::ordered_json::object()}};
    write();  // now, so that a folder that cannot be written is found before hours of work
  }

  /// Whether the stage was finished, in this run or an earlier one.
  bool done(const std::string& stage) const { return done_.count(stage) != 0; }
  /// Seconds that each finished stage took.
  std::map<std::string, double> seconds() const {
    std::map<std::string, double> all;
    for (const auto& [name, stage] : done_) all[name] = stage.seconds;
    return all;
  }
  /// Tokens that went through a model in training, or were written, in each finished stage; those that counted none are left out.
  std::map<std::string, std::int64_t> tokens() const {
    std::map<std::string, std::int64_t> all;
    for (const auto& [name, stage] : done_)
      if (stage.tokens > 0) all[name] = stage.tokens;
    return all;
  }
  /// For the stage that is being made.
  void count(std::int64_t tokens) { counted_ += tokens; }

  /// `load(path)` when the stage is done; otherwise `make(path)`, which writes that file for `load` to read. The file is `<stage><extension>`.
  template <class Load, class Make>
  void once(const std::string& stage, const char* extension, Load load, Make make) {
    const std::filesystem::path file = folder_ / (stage + extension);
    if (done(stage)) {
      load(file);
      std::printf("%-22s done before, in %.0f s\n", stage.c_str(), done_[stage].seconds);
      return;
    }
    const stopwatch watch;
    counted_ = 0;
    make(file);
    const auto hash = file_fingerprint(file);
    if (!hash) throw std::runtime_error("cannot read back " + file.string());
    done_[stage] = {watch.seconds(), file.filename().string(), std::to_string(*hash), counted_};
    write();
  }

 private:
  struct finished {
    double seconds = 0;
    std::string file{}, hash{};
    std::int64_t tokens = 0;
  };

  void take_over(const std::string& name, const nlohmann::json& stage) {
    const auto text = [&](const char* key) { return stage.is_object() && stage.contains(key) && stage[key].is_string() ? stage[key].get<std::string>() : ""; };
    const auto number = [&](const char* key) { return stage.is_object() && stage.contains(key) && stage[key].is_number() ? stage[key].get<double>() : 0; };
    const finished f{number("seconds"), text("file"), text("hash"), static_cast<std::int64_t>(number("tokens"))};
    const auto hash = f.file.empty() ? std::nullopt : file_fingerprint(folder_ / f.file);
    if (hash && std::to_string(*hash) == f.hash) {
      done_[name] = f;
    } else {
      const std::string which = f.file.empty() ? "run.json" : f.file;
      std::printf("%s: %s; stage \"%s\" is done again\n", (folder_ / which).string().c_str(),
                  f.file.empty() ? "says too little" : hash ? "is not what was written there" : "cannot be read", name.c_str());
    }
  }
  void move_away(const char* why) {
    auto old = folder_;
    old += ".old";
    for (int n = 2; std::filesystem::exists(old); ++n) old = folder_.string() + ".old" + std::to_string(n);
    std::error_code failed;
    std::filesystem::rename(folder_, old, failed);
    if (failed) throw std::runtime_error("cannot move " + folder_.string() + " to " + old.string() + ": " + failed.message());
    std::printf("%s: starting over%s; what was there is now %s\n", folder_.string().c_str(), why, old.string().c_str());
  }
  void write() {
    run_["stages"] = nlohmann::ordered_json::object();
    for (const auto& [name, stage] : done_)
      run_["stages"][name] = {{"seconds", stage.seconds}, {"file", stage.file}, {"hash", stage.hash}, {"tokens", stage.tokens}};
    write_atomically(folder_ / "run.json", run_.dump(2) + "\n");
  }

  std::filesystem::path folder_;
  std::map<std::string, finished> done_{};
  std::int64_t counted_ = 0;
  nlohmann::ordered_json run_{};
};

/// One run of one seed: the backend, the settings, and where it keeps its stages.
template <class B>
struct seed_context {
  B& compute;
  const settings& s;
  std::uint64_t seed;
  run_folder& folder;
};

/// Trains `model` by `train(model)`, or reads back what that gave.
template <class B, class Train>
void train_once(run_folder& folder, const std::string& stage, transformer<B>& model, Train train) {
  static_assert(sizeof(plumb::real_of<B>) == 4, "a checkpoint holds floats: what is read back is what was trained");
  using path = std::filesystem::path;
  folder.once(stage, ".safetensors", [&](const path& file) { load_checkpoint(file, model); },
              [&](const path& file) { train(model), save_checkpoint(file, model); });
}

/// What a stage of measuring leaves.
struct findings {
  std::vector<figure> figures{};
  std::vector<example> examples{};
};

inline void save(const std::filesystem::path& path, const findings& found) {
  nlohmann::ordered_json figures = nlohmann::ordered_json::array(), examples = nlohmann::ordered_json::array();
  for (const auto& f : found.figures) {
    figures.push_back(to_json(f));
    figures.back()["label"] = f.label;
  }
  for (const auto& e : found.examples) {
    nlohmann::ordered_json replies = nlohmann::ordered_json::array();
    for (const auto& r : e.replies) replies.push_back({{"by", r.by}, {"text", r.text}, {"score", or_null(r.score)}, {"reasons", r.reasons}});
    examples.push_back({{"prompt", e.prompt}, {"replies", replies}});
  }
  write_atomically(path, nlohmann::ordered_json{{"figures", figures}, {"examples", examples}}.dump(2) + "\n");
}

inline findings load_findings(const std::filesystem::path& path) {
  std::ifstream in(path);
  const auto all = nlohmann::json::parse(in, nullptr, false);
  if (all.is_discarded()) throw std::runtime_error(path.string() + ": cannot be read");
  findings found;
  const auto number = [](const nlohmann::json& x) { return x.is_number() ? std::optional<double>(x.get<double>()) : std::nullopt; };
  for (const auto& f : all.at("figures"))
    found.figures.push_back({f.at("name"), number(f.at("value")).value_or(std::numeric_limits<double>::quiet_NaN()), number(f.at("low")),
                             number(f.at("high")), f.at("n"), f.at("unit"), f.at("label")});
  for (const auto& e : all.at("examples")) {
    example one{.prompt = e.at("prompt")};
    for (const auto& r : e.at("replies")) one.replies.push_back({r.at("by"), r.at("text"), number(r.at("score")), r.at("reasons")});
    found.examples.push_back(std::move(one));
  }
  return found;
}

/// What `measure()` finds, or what it found before.
template <class Measure>
findings measure_once(run_folder& folder, const std::string& stage, Measure measure) {
  findings found;
  using path = std::filesystem::path;
  folder.once(stage, ".json", [&](const path& file) { found = load_findings(file); }, [&](const path& file) { save(file, found = measure()); });
  return found;
}

}  // namespace lab
