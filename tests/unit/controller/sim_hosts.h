/* Private to the simulation: its hosts. */
#ifndef TESTS_CONTROLLER_SIM_HOSTS_H
#define TESTS_CONTROLLER_SIM_HOSTS_H

#include "sim.h"

size_t sim_host_index(const struct sim *sim, const char *name);
struct sim_partition *sim_partition_find(struct sim *sim, size_t host, const char *vm_id); /* NULL: none */
struct sim_partition *sim_partition_make(struct sim *sim, size_t host, const char *vm_id);
/* PARTITION_STOP: a later generation is left alone. */
void sim_host_stop(struct sim *sim, size_t host, const char *vm_id, uint64_t generation);
/* What the two engines do by themselves once their time has come. A fenced destination makes the source give up. */
void sim_engines_run(struct sim *sim);
/* What a host would say of the migration. */
Drover__MigrationOutcome sim_outcome_of(const struct sim *sim, size_t host);
bool sim_outcome_final(Drover__MigrationOutcome outcome);
/* What it says with a final one; NULL: nothing. Take: pb_free(). */
Drover__ErrorInfo *sim_error(const struct sim *sim, size_t host);
/* sim_storage.c: the part of sim_host_call() that is about disks. */
int sim_storage_call(struct sim *sim, uint32_t method, const void *request, struct err *err, void **reply);
/* The host does what it is asked; `reply` is the caller's to free, also after an error. */
int sim_host_call(struct sim *sim, size_t host, uint32_t method, const void *request, struct err *err, void **reply);

#endif
