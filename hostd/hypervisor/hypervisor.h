/* What runs guests on this host. A guest here is one process of the hypervisor; whose it is, and whether it may run,
 * is decided above (hostd/partition/).
 *
 *   guest_start -> on_created(identity: write it down) -> on_ready -> ... -> on_ended
 *
 * Guests outlive hostd: guest_adopt() takes up one that an earlier hostd started. Failure modes: a guest that cannot be
 * started or ends by itself is told by on_ended, once, with the reason in words; guest_start() fails when not even a
 * process could be made. Callbacks come from the loop, never from inside the call that caused them, but for on_created.
 */
#ifndef HOSTD_HYPERVISOR_H
#define HOSTD_HYPERVISOR_H

#include <uv.h>

#include "base/err.h"
#include "base/process.h"
#include "proto/types.pb-c.h"

struct hypervisor;
struct guest;

struct hypervisor_options {
    const char *program;
    const char *accelerator; /* auto, kvm or tcg */
    const char *tracker;     /* auto, wp-async, wp-sync or qemu */
    const char *shim;        /* preloaded library that makes a guest migratable */
    uint64_t tcg_cache_mb;
};

#define HYPERVISOR_MACHINES_MAX     64
#define HYPERVISOR_CPU_MODELS_MAX   128
#define HYPERVISOR_CPU_FEATURES_MAX 512
#define HYPERVISOR_MISSING_MAX      64

struct hypervisor_facts {
    char version[64];             /* "QEMU 10.0.2" */
    const char *accelerator;      /* kvm or tcg */
    char accelerator_reason[256]; /* how that came about */
    char *machines[HYPERVISOR_MACHINES_MAX];
    size_t machine_count;
    const char *tracker;      /* wp-async, wp-sync, qemu, or none: guests cannot be migrated away */
    char tracker_reason[256]; /* why it is none, or no better */
    Drover__CpuModel *cpu_models[HYPERVISOR_CPU_MODELS_MAX]; /* under the accelerator */
    size_t cpu_model_count;
    char *cpu_features[HYPERVISOR_CPU_FEATURES_MAX]; /* of the richest model, sorted */
    size_t cpu_feature_count;
    uint32_t max_vcpus; /* 0: not known */
    uint64_t tsc_khz;   /* of kvm's guests; 0: not known */
    bool tsc_scaling;
};

/* Looks at the machine and the program: takes up to a few seconds, once. Take: hypervisor_close(). */
MUST_CHECK int hypervisor_open(
    uv_loop_t *loop, const struct hypervisor_options *options, struct err *err, struct hypervisor **out);
const struct hypervisor_facts *hypervisor_facts(const struct hypervisor *hypervisor);
void hypervisor_close(struct hypervisor *hypervisor);

struct guest_config {
    const char *vm_id;
    const Drover__VmSpec *spec;
    const char *directory;   /* exists; sockets and logs are made in it under the names of partition/paths.h */
    const char *ram_path;    /* made anew */
    const char *const *taps; /* one for each network card of `spec` */
    bool incoming;           /* waits for a migration instead of running */
    bool disks_come;         /* with it: holes in them must stay holes */
    const int *cgroup_fds;
    size_t cgroup_count;
};

struct guest_events {
    /* The process exists and waits for the answer before it runs anything; -1 ends it. */
    int (*on_created)(void *user, struct process_id id, struct err *err);
    /* It answers. `running`: the guest executes (false: paused, or waiting for a migration). */
    void (*on_ready)(void *user, bool running);
    /* Its storage has failed, and it stands still until that is mended and guest_continue() asked for. `why`,
     * printable: NULL: it runs again. */
    void (*on_halted)(void *user, const char *why);
    /* The process is gone and reaped. `by_guest`: the guest shut itself down. `why` is printable. */
    void (*on_ended)(void *user, bool by_guest, const char *why);
    void *user;
};

/* Take: guest_free(). */
MUST_CHECK int guest_start(struct hypervisor *hypervisor, const struct guest_config *config,
    const struct guest_events *events, struct err *err, struct guest **out);
/* ERR_NOT_FOUND: that process is gone. on_created is not called, on_ready is. Take: guest_free(). */
MUST_CHECK int guest_adopt(struct hypervisor *hypervisor, const char *directory, struct process_id id,
    const struct guest_events *events, struct err *err, struct guest **out);
/* Stops watching; the process goes on. NULL is fine. */
void guest_free(struct guest *guest);

/* Presses the guest's power button. False: its QEMU cannot be reached at the moment. */
bool guest_power_down(struct guest *guest);
/* Ends the process: it may close its images first, and is killed if that takes longer than moments. */
void guest_end(struct guest *guest);
/* Ends the process at once. */
void guest_kill(struct guest *guest);

/* Sees to it that the guest executes, also when a migration of its state was cut off. `fn` comes once, but not after
 * on_ended or guest_free(). ERR_WRONG_STATE: QEMU refuses, and will for ever; ERR_BUSY: it refuses as yet; any other
 * error says nothing about the guest. */
typedef void (*guest_done_fn)(void *user, const struct err *err);
void guest_resume(struct guest *guest, guest_done_fn fn, void *user);

/* Has a guest that stands still because its storage failed, and for no other reason, go on: on_halted tells. */
void guest_continue(struct guest *guest);

struct guest_disk_ops {
    uint64_t reads, writes; /* completed since the process began */
};
/* `err` NULL: `ops` is lent for the call. Also called, with ERR_CANCELLED, from inside guest_free(). */
typedef void (*guest_disk_ops_fn)(void *user, const struct err *err, const struct guest_disk_ops *ops);
/* False: it cannot be asked now, and `fn` is not called. */
bool guest_disk_ops(struct guest *guest, guest_disk_ops_fn fn, void *user);

struct process_id guest_process(const struct guest *guest);

#endif
