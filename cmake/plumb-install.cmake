# Installs headers, a package for find_package with components, and one for pkg-config. Nothing depends
# on the architecture, so everything but the headers goes to share/.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package "${CMAKE_INSTALL_DATADIR}/cmake/plumb")

install(TARGETS plumb EXPORT plumb FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
# Backends are installed whether this build has them or not: they are headers; their libraries are found where they are
# used.
foreach(backend IN LISTS PLUMB_BACKENDS)
  install(DIRECTORY backends/${backend}/include/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
          FILES_MATCHING PATTERN "*.hpp")
endforeach()

install(EXPORT plumb NAMESPACE plumb:: FILE plumb-targets.cmake DESTINATION "${package}")
configure_package_config_file(cmake/plumb-config.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/plumb-config.cmake"
                              INSTALL_DESTINATION "${package}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/plumb-config-version.cmake" COMPATIBILITY SameMajorVersion
                                 ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/plumb-config.cmake" "${CMAKE_CURRENT_BINARY_DIR}/plumb-config-version.cmake"
              cmake/plumb-components.cmake DESTINATION "${package}")

configure_file(cmake/plumb.pc.in plumb.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/plumb.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
