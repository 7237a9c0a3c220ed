/* How jobs and migrations are shown to people; used by more than one noun. */
#ifndef CLI_SHOW_H
#define CLI_SHOW_H

#include "proto/api.pb-c.h"

void show_job(const Drover__Job *job);
/* NULL is fine. */
void show_forecast(const Drover__MigrationForecast *forecast);
void show_migration(const Drover__MigrationRecord *record);
/* Where a VM stands, in a word. `out` may be used for it. */
const char *show_vm_state(const Drover__Vm *vm, char out[static 64]);
/* "2025-01-31T12:00:00Z", "-" for never. */
const char *show_time(int64_t wall_ms, char out[static 32]);
/* Used of available, e.g. "0.41/2", "120 MiB/256 MiB"; only what is used where the other is 0. */
#define SHOW_SHARE_MAX 72
const char *show_cores(double used, double of, char out[static SHOW_SHARE_MAX]);
const char *show_bytes(uint64_t used, uint64_t of, char out[static SHOW_SHARE_MAX]);

#endif
