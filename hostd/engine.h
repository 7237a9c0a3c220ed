/* The migration engine's process, as hostd runs it: its configuration file, its control socket, its end. What it is
 * told and tells is in migrate/README.md; what follows from its end is decided in decision.h.
 *
 *   engine_start -> on_created(identity: write it down) -> on_change(...)* -> on_ended
 *
 * on_ended comes once, when the process is dead and reaped and everything it said has been read: only then its record
 * file says for good how far it came. Engines outlive hostd: engine_adopt(). Single-threaded. */
#ifndef HOSTD_ENGINE_H
#define HOSTD_ENGINE_H

#include <net/if.h>
#include <uv.h>

#include "base/process.h"
#include "hostd/child.h"
#include "hostd/report.h"
#include "proto/host.pb-c.h"

struct engine;

enum engine_role {
    ENGINE_SOURCE,
    ENGINE_DESTINATION,
    ENGINE_FORECAST, /* watches the guest, says how a migration would go, and ends; dies with hostd */
};

/* What it may use; 0: not limited. */
struct engine_quota {
    uint64_t bytes_per_s;
    uint64_t millicores; /* thousandths of a core */
};

struct engine_config {
    const char *program;
    enum engine_role role;
    const char *migration_id;
    const char *key_file;
    const char *peer_key;  /* Z85 */
    const char *directory; /* the partition's */
    const char *ram_path;
    const Drover__VmSpec *spec;
    struct process_id guest;
    bool disks;          /* those the guest writes to move, too */
    const char *address; /* destination: tcp://IP:0 to listen at; source: where to connect */
    const Drover__MigrationOptions *options;
    const Drover__LinkHistory *way; /* NULL: not known */
    const char *announce_interface;
    const char (*taps)[IF_NAMESIZE]; /* destination: of the guest, one a card */
    struct engine_quota quota;
    const char *cores;             /* "0,2-3": where it may run; NULL: anywhere */
    const char *image, *image_key; /* destination: of the guest's last visit; NULL: there is none */
    const char *log_level;         /* NULL: the engine's default */
    const int *cgroup_fds;
    size_t cgroup_count;
};

struct engine_events {
    int (*on_created)(void *user, struct process_id id, struct err *err);
    void (*on_change)(void *user, enum report_change change);
    /* `why`: its failure in words, or its last words. */
    void (*on_ended)(void *user, const char *why);
    void *user;
};

/* The configuration file's text. Pure. Take: free(). */
char *engine_config_format(const struct engine_config *config);

/* Take: engine_free(). */
MUST_CHECK int engine_start(uv_loop_t *loop, const struct engine_config *config, const struct engine_events *events,
    struct err *err, struct engine **out);
/* Starts a source engine again that died after the hand-over with pages of the guest still here; its files are there.
 * ERR_WRONG_STATE: its record does not say so. Take: engine_free(). */
MUST_CHECK int engine_resume(uv_loop_t *loop, const struct engine_config *config, const struct engine_events *events,
    struct err *err, struct engine **out);
/* An engine has died: starts what lets go of the guest in its stead. By config->role: a source's guest goes on writing
 * (drover-migrate release); a destination's that has not run here and never can becomes its source's again by the
 * record (drover-migrate give-back). Ends within seconds. The engine's files are there. Take: child_free(). */
MUST_CHECK int engine_let_go(uv_loop_t *loop, const struct engine_config *config, child_exit_fn fn, void *user,
    struct err *err, struct child **out);
/* ERR_NOT_FOUND: that process is gone. Take: engine_free(). */
MUST_CHECK int engine_adopt(uv_loop_t *loop, const char *directory, struct process_id id,
    const struct engine_events *events, struct err *err, struct engine **out);
const struct report *engine_report(const struct engine *engine);
/* Of one that has ended: true if it exited by itself, and so had let go of the guest's memory; false if it was killed,
 * or nobody saw how it ended: then its guardian may have been killed with it. */
bool engine_in_order(const struct engine *engine);
/* Takes its report out of an engine that has ended. */
void engine_take_report(struct engine *engine, struct report *out);
/* From now on; it is told as soon as it listens. */
void engine_set_quota(struct engine *engine, const struct engine_quota *quota);
/* Asks it to stop before it hands over. */
void engine_cancel(struct engine *engine);
void engine_kill(struct engine *engine);
struct process_id engine_process(const struct engine *engine);
/* Ends it without being told any more. Takes the engine; NULL is fine. */
void engine_abandon(struct engine *engine);
/* Stops watching; the process goes on. NULL is fine. Allowed inside on_ended. */
void engine_free(struct engine *engine);

/* What the record file in a partition's directory says of this migration. */
enum record_phase engine_record(const char *directory, const char *migration_id);
/* Whether the directory holds the files of an engine. */
bool engine_has_files(const char *directory);
/* Removes the files of the last engine in the directory; it must be dead. */
void engine_remove_files(const char *directory);

#endif
