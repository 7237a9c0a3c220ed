/* What the files of hostd/partition/ share: the partition itself and the moves that all of them make. */
#ifndef HOSTD_PARTITION_PRIVATE_H
#define HOSTD_PARTITION_PRIVATE_H

#include "base/loop.h"
#include "hostd/decision.h"
#include "hostd/engine.h"
#include "hostd/heard.h"
#include "hostd/hypervisor/disk_copy.h"
#include "hostd/partition/partition.h"
#include "hostd/partition/spec.h"
#include "hostd/visits.h"

struct files;
struct image;
struct storage_look;

struct query {
    struct query *next;
    struct wire_request *request;
};

/* What is under way once an engine has ended, until its partition is at rest. */
enum aftermath {
    AFTERMATH_NONE,
    AFTERMATH_RELEASE, /* `releaser` lets go of the guest in the engine's stead; then `released` decides */
    AFTERMATH_RESUME,  /* QEMU is asked to run the guest: `resuming` */
};

/* `err` NULL: the guest runs. */
typedef void (*resume_fn)(struct partition *p, const struct err *err);

struct resuming {
    struct loop_timer *again; /* NULL: it was never asked twice */
    resume_fn on_end, on_late;
    uint64_t since_ms;
    unsigned refusals, asked;
    bool told;
};

/* QEMU has stopped the guest for its storage. */
struct standstill {
    char why[RECORD_TEXT_MAX]; /* empty: it has not */
    struct loop_timer *again;  /* NULL: likewise */
    uint64_t pause_ms;
};

struct partition {
    struct partition *prev, *next;
    struct partitions *all;
    struct record record;
    char directory[PATH_MAX];
    char taps[SPEC_NICS_MAX][IF_NAMESIZE];
    struct guest *guest;    /* NULL: no process */
    struct heard *heard;    /* the guest's addresses; NULL: it has no taps */
    struct disk_copy *copy; /* of record.storage, once the guest can be asked; NULL: none */
    bool copy_cancelled;
    bool copy_linking;            /* the change-over was tried, perhaps by an earlier hostd: it may have happened */
    struct storage_look *looking; /* adopted: which file is the disk is being asked; NULL: it is not */
    Drover__DiskMoves *arrivals;  /* INCOMING: disks whose files are being made; owned */
    size_t arriving;              /* the one that is */
    struct image *image;
    struct engine *engine;    /* NULL: no migration under way */
    struct engine *lingering; /* of the migration that brought the guest here: announces it, answers the source again */
    char arrival[PATHS_ID_MAX]; /* that migration */
    enum aftermath aftermath;
    struct child *releaser; /* AFTERMATH_RELEASE: let_go.c */
    unsigned releases;      /* those that were killed themselves, in a row */
    void (*released)(struct partition *p);
    struct resuming resuming;
    struct standstill standstill;
    struct engine *forecaster; /* watches for MIGRATE_FORECAST, and who asked */
    struct wire_request *forecasting;
    struct action *starting; /* PARTITION_START or MIGRATE_PREPARE under way */
    struct action *moving;   /* MIGRATE_START that waits for `lingering` to end, and its message */
    Drover__MigrateStartRequest *move;
    struct action *stopping;          /* PARTITION_STOP, a list over `also` */
    struct query *queries;            /* who waits until it is decided how the migration ended */
    bool forsaken;                    /* OUTGOING: the destination is gone for good, so the engine's work is over */
    bool fenced;                      /* INCOMING: the engine is to end, unless it has become the owner */
    struct loop_timer *fence;         /* until it is killed; NULL: there was none yet */
    struct wire_request *resolving;   /* MIGRATE_RESOLVE under way */
    struct loop_timer *timer;         /* of the state's deadline */
    struct loop_timer *farewell;      /* until `lingering` is ended; NULL: there was none yet */
    struct loop_timer *again;         /* until an engine is tried again that died in post-copy; NULL: none did yet */
    uint32_t engine_resumes;          /* such tries since one made progress */
    struct engine_quota quota;        /* of `engine` */
    uint64_t migrating_from_ms;       /* for progress */
    char peer_key[KEY_TEXT];          /* INCOMING, until its engine is started */
    Drover__MigrationOptions options; /* its strings are not owned; `tracker` points to the next field */
    char tracker[16];
    char end_detail[RECORD_TEXT_MAX]; /* for those who asked for the end */
    struct err start_failure;         /* for `starting`, told when nothing is left */
    bool forced;                      /* its end is not waited for */
    uint64_t pressed_ms;              /* when its host, being shut down, pressed its power button last; 0: never */
    bool shut_down;                   /* by the guest itself, while an engine was at work */
    struct report last;               /* what the engine that ended had told; whether it was killed it does not say */
    Drover__MigrationOutcome told;    /* that the controllers are needed: DOUBT or UNANSWERED; UNKNOWN: nothing yet */
    bool left;                        /* its guest runs elsewhere, so what it held here may be kept for its return */
    uint64_t reported_in;             /* sequence of the first report of its end; 0: not yet */
    struct usage *usage;
    Drover__Load load, demand; /* demand: load, smoothed */
};

struct partitions {
    struct partitions_env env;
    struct partition *list;
    struct files *files; /* what threads look at for requests */
    char host_name[WIRE_PRINCIPAL_MAX];
    bool shutting_down; /* the host is */
};

/* partition.c: making, moving, removing. */

/* Makes directory and record in `state`; -1 leaves nothing behind. Copies everything. */
MUST_CHECK int partition_make(struct partitions *ps, const char *vm_id, uint64_t generation, const Drover__VmSpec *spec,
    enum partition_state state, const struct record_migration *migration, struct err *err, struct partition **out);
/* True if the host has been reset since the partition was made: its processes are gone, and so may be what they wrote
 * last. */
bool partition_of_other_boot(const struct partition *p);
/* A partition of a loaded record, taken. */
struct partition *partition_adopt_record(struct partitions *ps, const char *directory, struct record *record);
/* The only way to another state: checked against the table, traced, written down first. -1: not written, nothing
 * changed. */
MUST_CHECK int partition_move(struct partition *p, enum partition_state to, const char *detail, struct err *err);
/* For what has happened already, whether it can be written down or not. */
void partition_note(struct partition *p, enum partition_state to, const char *detail);
MUST_CHECK int partition_save(struct partition *p, struct err *err);
/* Learns the guest's addresses from its taps, which exist. */
void partition_listen(struct partition *p);
/* Frees what a guest uses: process handle, taps, cgroup, RAM file. The record stays. Its processes must be dead. */
void partition_release(struct partition *p);
/* Releases, removes the directory, answers whoever waits, and frees it. Its processes must be dead. */
void partition_remove(struct partition *p);
/* Removes what belongs to a VM id without a record. */
void partition_sweep(struct partitions *ps, const char *vm_id);
void partition_free(struct partition *p);

/* room.c: memory for guests. */

/* Of the capacity: what no partition here may use. */
uint64_t partitions_memory_free(const struct partitions *ps);
/* Of the RAM files' file system: what counts as free there although guests may come to use it. */
uint64_t partitions_ram_promised(const struct partitions *ps);
/* ERR_CAPACITY unless the guest fits in beside those that are here: RAM files beyond it would take the host down. */
MUST_CHECK int partition_room(struct partitions *ps, const Drover__VmSpec *spec, struct err *err);

/* life.c: starting and ending. */

/* Makes taps, cgroup and RAM and starts the guest's process. */
MUST_CHECK int partition_spawn(struct partition *p, bool incoming, struct err *err);
extern const struct guest_events partition_guest_events; /* `user` to be set to the partition */
/* Decides its end (STOPPING, written down) and brings it about; `hard`: the guest's images are not ours to close any
 * more. */
void partition_end(struct partition *p, const char *detail, bool hard);
/* Waits until `stop_by_ms` for the guest to shut down. */
void partition_await_stop(struct partition *p);
/* The start under way has failed: ends the partition, then answers. */
void partition_start_failed(struct partition *p, const struct err *err);
/* What a guest's death means once no engine is left. */
void partition_guest_dead(struct partition *p, bool by_guest, const char *why);

/* forecast.c */

/* Of an adopted partition that runs: what an earlier hostd left of its engines, which are dead, holds it up no more. */
void forecast_adopt(struct partition *p);
/* Ends a forecast under way, whoever waits for it. */
void forecast_drop(struct partition *p);

/* requests.c */
MUST_CHECK int migration_check_options(const Drover__MigrationOptions *options, struct err *err);

/* migration.c */

/* migrate_prepare()'s partition cannot be made. */
void migration_prepare_failed(struct partition *p, const struct err *err);
/* The incoming guest answers: start its engine. */
void migration_guest_ready(struct partition *p);
/* MIGRATE_START, checked: starts the source engine and answers. */
void migration_launch(struct partition *p, const Drover__MigrateStartRequest *m, struct action *action);
/* No engine is left, whenever and however it went: decides by its record file. */
void migration_decide(struct partition *p, const char *why);
/* The guest has died, so that it cannot be resumed any more. */
void migration_guest_ended(struct partition *p, const char *why);
/* PARTITION_STOP where a migration is under way or in doubt: whatever its engine had come to, the partition ends. */
void migration_stop(struct partition *p);
/* IN_DOUBT: the controllers have said whose the guest is. Takes the request. */
void migration_resolve(struct partition *p, bool resume, uint64_t generation, struct wire_request *request);
extern const struct engine_events migration_engine_events; /* `user` to be set to the partition */

/* let_go.c: AFTERMATH_RELEASE. */

/* decide_let_go(): has that done, or finds that it cannot be, then calls `released`. The engine's files are there. */
void let_go_begin(struct partition *p, void (*released)(struct partition *p));
/* The guest is dead; nobody is told. */
void let_go_drop(struct partition *p);
/* The engine is dead, `in_order` or not (engine_in_order()). Decides, once the guest has been let go of. */
void migration_engine_dead(struct partition *p, bool in_order, const char *why);

/* resume.c: AFTERMATH_RESUME. */

/* Has the guest, which is this host's and alive, executed. `on_end` is told once, with the reason if QEMU refuses for
 * good; `on_late` before it, at most once, where that takes long. */
void resume_begin(struct partition *p, resume_fn on_end, resume_fn on_late);
/* The guest is dead, or to be ended; nobody is told. */
void resume_drop(struct partition *p);

/* standstill.c: guests that QEMU has stopped for their storage. */

/* `why` NULL: it runs again. */
void standstill_told(struct partition *p, const char *why);
/* The guest is dead. */
void standstill_drop(struct partition *p);
/* ERR_WRONG_STATE, with the reason, where the guest stands still. */
MUST_CHECK int standstill_check(const struct partition *p, struct err *err);

/* sending.c: source engines that died in post-copy. */

/* The record says that pages are still to be sent, and no engine is left: true: one will be started. */
bool sending_resume(struct partition *p);
/* The engine sends. */
void sending_progressed(struct partition *p);

/* queries.c */

/* Of a migration that is not over: UNDER_WAY, UNANSWERED or DOUBT. */
Drover__MigrationOutcome queries_outcome_so_far(const struct partition *p);
/* An INCOMING partition that was to end: true when its engine has become the owner all the same; those who wait have
 * then been answered. */
bool queries_owned(struct partition *p);
/* Answers those who wait for how the migration ended, if it is kept, or is in doubt. */
void queries_answer(struct partition *p);
/* Has them ask again. */
void queries_refuse(struct partition *p, const struct err *err);

/* quotas.c: what migrations may use of this host. */

/* Divides it among those under way, and `beginning` (NULL: none), whose engine is about to be started; tells them. */
void quotas_divide(struct partitions *ps, const struct partition *beginning);
/* The cores that no guest's virtual CPUs are pinned to; NULL: all. Take: free(). */
char *quotas_cores(struct partitions *ps);

/* arrivals.c: disks that come with a migration. */

MUST_CHECK int arrivals_check(const Drover__DiskMoves *moves, const Drover__VmSpec *spec, struct err *err);
/* Makes their files, then spawns the incoming guest; a failure is one of the preparation. */
void arrivals_make(struct partition *p, const Drover__DiskMoves *moves);
/* Stops making them. */
void arrivals_forget(struct partition *p);
/* While the record still holds the migration: the files are the guest's, or they go. */
void arrivals_settle(struct partition *p, bool ours);

/* storage.c: a disk on its way to another file. */

/* Written down and begun. The partition runs, and nothing else is being done with it. */
MUST_CHECK int storage_begin(struct partition *p, const struct record_storage *move, struct err *err);
/* The guest of an adopted partition answers: go on with what an earlier hostd began. */
void storage_adopt(struct partition *p);
void storage_cancel(struct partition *p);
/* The guest's process is gone, and its handle freed: how it ended is told, at once or when the files have been looked
 * at. */
void storage_guest_dead(struct partition *p);
/* Stops watching; QEMU goes on. */
void storage_drop(struct partition *p);

/* files.c: what threads look at now has come to nothing. */
void files_drop(struct partitions *ps);

#endif
