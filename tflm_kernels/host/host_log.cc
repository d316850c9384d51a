// SPDX-License-Identifier: Apache-2.0
//
// Where the ops and the planner log on the host.
#include <cstdarg>
#include <cstdio>

#include "host/host_abi.h"

namespace mcuformer {
namespace host {
namespace {

thread_local char last_log[512];

}  // namespace

void (*log_print)(const char* format, ...) = nullptr;

void Log(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_log, sizeof(last_log), format, arguments);
  va_end(arguments);
  if (log_print != nullptr) log_print("%s", last_log);
}

}  // namespace host
}  // namespace mcuformer

// The last line that was logged in this thread, empty if none since mcuf_host_clear_log().
MCUF_EXPORT const char* mcuf_host_last_log() { return mcuformer::host::last_log; }
MCUF_EXPORT void mcuf_host_clear_log() { mcuformer::host::last_log[0] = '\0'; }
