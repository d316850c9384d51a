# SPDX-License-Identifier: Apache-2.0
# The second of ESP-IDF's two parses: each component becomes a library, and the project a program for the host.
# KCONFIG: a folder with sdkconfig.h and sdkconfig.cmake; MORE_COMPONENTS: folders beside EXTRA_COMPONENT_DIRS.
include(${KCONFIG}/sdkconfig.cmake)
set(STUBS "${CMAKE_CURRENT_LIST_DIR}/../..")

function(idf_component_register)
  cmake_parse_arguments(_ "" "" "SRCS;INCLUDE_DIRS;REQUIRES;PRIV_REQUIRES" ${ARGN})
  if(__UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "idf_component_register: ${__UNPARSED_ARGUMENTS}")
  endif()
  add_compile_options(-Og)
  add_library(${COMPONENT_LIB} STATIC ${__SRCS})
  target_include_directories(${COMPONENT_LIB} PUBLIC ${__INCLUDE_DIRS} PRIVATE "${STUBS}/include" ${KCONFIG})
endfunction()

macro(project name)
  _project(${name} C ASM)
  set(libraries)
  foreach(folder ${EXTRA_COMPONENT_DIRS} ${MORE_COMPONENTS} "${CMAKE_CURRENT_LIST_DIR}/main")
    get_filename_component(component ${folder} NAME)
    set(COMPONENT_LIB __idf_${component})
    add_subdirectory(${folder} ${component})
    list(APPEND libraries ${COMPONENT_LIB})
  endforeach()
  list(REMOVE_ITEM libraries __idf_main)
  target_link_libraries(__idf_main PUBLIC ${libraries}) # main requires all components if it names none
  add_executable(${name} "${STUBS}/host.c" "${STUBS}/../other_export.c")
  target_link_libraries(${name} PRIVATE __idf_main)
endmacro()
