// What plumb's headers cost to compile, beside <span> <vector> <string> <cmath> together, which nearly any program
// includes.
//
//   plumb_compile_time COMPILER INCLUDE_DIR ROUNDS OUTPUT.json HEADER...
//
// Each round compiles every row once, in turn, so that a busy machine slows all rows alike; medians of processor
// seconds (user and system, the compiler's children included) and the peak resident memory.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

struct row {
  std::string name;
  std::vector<std::string> headers;
  std::vector<double> seconds, mebibytes;
};

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const std::size_t n = x.size();
  return n % 2 == 1 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double seconds(const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); }

bool compile(const char* compiler, const std::string& include, row& r) {
  std::vector<std::string> words{compiler, "-std=c++20", "-I", include};
  for (const std::string& h : r.headers) words.insert(words.end(), {"-include", h});
  words.insert(words.end(), {"-x", "c++", "-c", "/dev/null", "-o", "/dev/null"});
  std::vector<char*> arguments;
  for (std::string& w : words) arguments.push_back(w.data());
  arguments.push_back(nullptr);

  const pid_t child = fork();
  if (child == 0) {
    execvp(compiler, arguments.data());
    std::perror(compiler);
    _exit(127);
  }
  int status = 0;
  rusage used{};
  if (child < 0 || wait4(child, &status, 0, &used) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "%s does not compile\n", r.name.c_str());
    return false;
  }
  r.seconds.push_back(seconds(used.ru_utime) + seconds(used.ru_stime));
  r.mebibytes.push_back(static_cast<double>(used.ru_maxrss) / 1024);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: plumb_compile_time COMPILER INCLUDE_DIR ROUNDS OUTPUT.json HEADER...\n");
    return 2;
  }
  const int rounds = std::max(1, std::atoi(argv[3]));
  std::vector<row> rows;
  rows.push_back({"<span> <vector> <string> <cmath>", {"span", "vector", "string", "cmath"}, {}, {}});
  for (int i = 5; i < argc; ++i) rows.push_back({argv[i], {argv[i]}, {}, {}});

  for (int round = 0; round < rounds; ++round)
    for (row& r : rows)
      if (!compile(argv[1], argv[2], r)) return 1;

  std::FILE* json = std::fopen(argv[4], "w");
  if (json == nullptr) {
    std::perror(argv[4]);
    return 1;
  }
  std::printf("%s, median of %d rounds\n%-50s %9s %6s %9s %6s\n", argv[1], rounds, "", "seconds", "ratio", "MiB",
              "ratio");
  std::fprintf(json, "{\n  \"compiler\": \"%s\",\n  \"rounds\": %d,\n  \"rows\": [", argv[1], rounds);
  const double base_seconds = median(rows[0].seconds), base_mebibytes = median(rows[0].mebibytes);
  for (const row& r : rows) {
    const double s = median(r.seconds), m = median(r.mebibytes);
    std::printf("%-50s %9.3f %6.2f %9.1f %6.2f\n", r.name.c_str(), s, s / base_seconds, m, m / base_mebibytes);
    std::fprintf(json,
                 "%s\n    {\"name\": \"%s\", \"seconds\": %.4f, \"seconds_ratio\": %.3f, \"mebibytes\": %.2f, "
                 "\"mebibytes_ratio\": %.3f}",
                 &r == rows.data() ? "" : ",", r.name.c_str(), s, s / base_seconds, m, m / base_mebibytes);
  }
  std::fprintf(json, "\n  ]\n}\n");
  return std::fclose(json) == 0 ? 0 : 1;
}
