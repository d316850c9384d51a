# SPDX-License-Identifier: Apache-2.0
# The first of ESP-IDF's two parses of a component: a script, which ends at idf_component_register.
# cmake -DCOMPONENT=folder -P requirements.cmake
set(CMAKE_BUILD_EARLY_EXPANSION 1)

macro(idf_component_register)
  cmake_parse_arguments(_ "" "" "SRCS;INCLUDE_DIRS;REQUIRES;PRIV_REQUIRES" ${ARGN})
  message("requires: ${__REQUIRES} ${__PRIV_REQUIRES} left over: ${__UNPARSED_ARGUMENTS}")
  return()
endmacro()

include(${COMPONENT}/CMakeLists.txt)
