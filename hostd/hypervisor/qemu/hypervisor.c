#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "hostd/hypervisor/qemu/private.h"
#include "hostd/hypervisor/qemu/probe.h"

#define READY_MS  30000u
#define SETTLE_MS 5000u

int hypervisor_open(uv_loop_t *loop, const struct hypervisor_options *options, struct err *err, struct hypervisor **out)
{
    struct hypervisor *hv = mem_zalloc(sizeof *hv);
    struct hypervisor_facts *facts = &hv->facts;
    if (discover_program(options->program, err, facts) < 0) {
        hypervisor_close(hv);
        return -1;
    }
    struct probe_result probe = {.outcome = PROBE_NO_DEVICE};
    if (strcmp(options->accelerator, "auto") == 0)
        probe = probe_run();
    facts->accelerator =
        probe_verdict(options->accelerator, &probe, sizeof facts->accelerator_reason, facts->accelerator_reason);
    discover_tracker(options->shim, options->tracker, facts);
    discover_cpus(options->program, facts);
    hv->loop = loop;
    hv->program = mem_strdup(options->program);
    hv->shim = access(options->shim, R_OK) < 0 ? NULL : mem_strdup(options->shim);
    hv->tcg_cache_mb = options->tcg_cache_mb;
    hv->ready_ms = READY_MS;
    hv->settle_ms = SETTLE_MS;
    log_event(LOG_INFO, "hypervisor.probed", "version=%s accelerator=%s reason=%s tracker=%s tracker_reason=%s",
        LOG_QUOTE(facts->version), facts->accelerator, LOG_QUOTE(facts->accelerator_reason), facts->tracker,
        LOG_QUOTE(facts->tracker_reason));
    if (strcmp(facts->tracker, "none") == 0)
        log_event(LOG_WARN, "tracker.missing", "reason=%s consequence=%s", LOG_QUOTE(facts->tracker_reason),
            LOG_QUOTE("partitions cannot be migrated away from this host"));
    *out = hv;
    return 0;
}

const struct hypervisor_facts *hypervisor_facts(const struct hypervisor *hypervisor)
{
    return &hypervisor->facts;
}

void hypervisor_close(struct hypervisor *hv)
{
    if (!hv)
        return;
    for (size_t i = 0; i < hv->facts.machine_count; i++)
        free(hv->facts.machines[i]);
    discover_cpus_free(&hv->facts);
    free(hv->program);
    free(hv->shim);
    free(hv);
}
