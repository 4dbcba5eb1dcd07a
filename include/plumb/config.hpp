#pragma once
// Every macro of the library stands here (and the version in version.hpp).
//
//   PLUMB_NO_EXCEPTIONS  errors go to a handler that must not return; set by itself under -fno-exceptions
//   PLUMB_CHECKED        also check data, not only shapes: ids in range, segments inside their array (host memory only)
//   PLUMB_HD             marks what also compiles for a device

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "plumb needs C++20: compile with -std=c++20"
#endif

#include <plumb/version.hpp>

#if !defined(PLUMB_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#define PLUMB_NO_EXCEPTIONS
#endif

#if defined(__CUDACC__)
#define PLUMB_HD __host__ __device__
#else
#define PLUMB_HD
#endif

// Functions of units compiled in different modes live in different inline namespaces, so that they link together and none runs the other's:
// x/n exceptions or not, p/f precise or fast mathematics, u/c unchecked or checked data, s/o single or OpenMP's threads. What units hand to
// one another (views, layouts, 16-bit storage, errors) is the same in every mode and stands in a namespace of the version alone.
#if defined(PLUMB_NO_EXCEPTIONS)
#define PLUMB_MODE_ERRORS n
#else
#define PLUMB_MODE_ERRORS x
#endif
#if defined(__FAST_MATH__)
#define PLUMB_MODE_MATH f
#else
#define PLUMB_MODE_MATH p
#endif
#if defined(PLUMB_CHECKED)
#define PLUMB_MODE_DATA c
#else
#define PLUMB_MODE_DATA u
#endif
#if defined(_OPENMP)
#define PLUMB_MODE_THREADS o
#else
#define PLUMB_MODE_THREADS s
#endif
#define PLUMB_JOIN_(a, b, c, d, e, f) v##a##_##b##_##c##d##e##f
#define PLUMB_JOIN(a, b, c, d, e, f) PLUMB_JOIN_(a, b, c, d, e, f)
#define PLUMB_ABI                                                                                             \
  PLUMB_JOIN(PLUMB_VERSION_MAJOR, PLUMB_VERSION_MINOR, PLUMB_MODE_ERRORS, PLUMB_MODE_MATH, PLUMB_MODE_DATA, \
             PLUMB_MODE_THREADS)

#define PLUMB_TYPES_JOIN_(a, b) v##a##_##b
#define PLUMB_TYPES_JOIN(a, b) PLUMB_TYPES_JOIN_(a, b)
#define PLUMB_TYPES_ABI PLUMB_TYPES_JOIN(PLUMB_VERSION_MAJOR, PLUMB_VERSION_MINOR)

#define PLUMB_TYPES_BEGIN \
  namespace plumb {       \
  inline namespace PLUMB_TYPES_ABI {
#define PLUMB_TYPES_END PLUMB_NAMESPACE_END
#define PLUMB_NAMESPACE_BEGIN \
  namespace plumb {           \
  inline namespace PLUMB_ABI {
#define PLUMB_NAMESPACE_END \
  }                         \
  }
