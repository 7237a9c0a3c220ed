# One place for compiler settings, packages and the helpers that declare a room's library, program and unit tests.
include(GNUInstallDirs)
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

foreach(module libzmq libprotobuf-c libuv liblz4 sqlite3 jansson libnl-route-3.0 libmicrohttpd inih smartcols libcrypto libxxhash raft)
  string(REGEX REPLACE "^lib|-[0-9.]+$" "" name ${module})
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
endforeach()

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_EXTENSIONS ON) # GNU C for cleanup attributes and Linux system calls
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(DROVER_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined or thread")

# What makes a fault of memory harder to use: also for what is loaded into QEMU. Sanitizers find such faults themselves and know these
# checks as their own; _FORTIFY_SOURCE needs an optimizer.
add_library(drover_hardening INTERFACE)
if(NOT DROVER_SANITIZE)
  target_compile_options(drover_hardening INTERFACE -fstack-protector-strong -fstack-clash-protection
    $<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64")
    target_compile_options(drover_hardening INTERFACE -fcf-protection)
  endif()
  target_link_options(drover_hardening INTERFACE -Wl,-z,relro,-z,now)
endif()

add_library(drover_flags INTERFACE)
target_compile_definitions(drover_flags INTERFACE _GNU_SOURCE DROVER_VERSION="${PROJECT_VERSION}")
target_include_directories(drover_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
target_compile_options(drover_flags INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wconversion -Wvla -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
  -Wundef -Wwrite-strings -Wno-missing-field-initializers -fno-common -fPIE)
target_link_options(drover_flags INTERFACE -pie)
target_link_libraries(drover_flags INTERFACE drover_hardening)
if(DROVER_SANITIZE)
  # Instrumentation makes gcc warn of paths that cannot be taken; the other builds are the judge of warnings.
  target_compile_options(drover_flags INTERFACE -Wno-error -fsanitize=${DROVER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(drover_flags INTERFACE -fsanitize=${DROVER_SANITIZE})
endif()

# drover_library(NAME SOURCES... [LINK TARGETS...]): a room's static library.
function(drover_library name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PUBLIC drover_flags ${arg_LINK})
endfunction()

# drover_program(NAME [FOR_USERS] SOURCES... [LINK TARGETS...]): an executable that is installed, where every user's PATH leads or, being a
# daemon, where the administrator's does.
function(drover_program name)
  cmake_parse_arguments(arg "FOR_USERS" "" "LINK" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE drover_flags ${arg_LINK})
  if(arg_FOR_USERS)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  else()
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
  endif()
endfunction()

# drover_unit(NAME SOURCES... [LINK TARGETS...]): a cmocka program in build/tests, registered with ctest under its name.
function(drover_unit name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE drover_flags cmocka ${arg_LINK})
  add_test(NAME ${name} COMMAND ${name})
  # For what hangs: the longest takes 45 s with sanitizers, and machines are shared.
  set_tests_properties(${name} PROPERTIES TIMEOUT 900 LABELS unit)
endfunction()
