#include "base/crashpoint.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* Every point of every program. What one is for stands where it is set. */
static const char *const names[] = {
    /* migrate/source*.c: phases, then steps and messages between them */
    "source.connecting",
    "source.disks",
    "source.precopy",
    "source.switching",
    "source.handed-over",
    "source.unanswered",
    "source.postcopy",
    "source.done",
    "source.failing",
    "source.failed",
    "source.doubt",
    "source.hello-sent",
    "source.round-over",
    "source.postcopy-asked",
    "source.stopped",
    "source.state-sent",
    "source.hand-over-sent",
    "source.hand-over-answered",
    "source.farewell-sent",
    "source.all-here",
    "source.offer-asked",
    "source.offer-taken",
    "source.relay-connected",
    "source.mirror-begun",
    "source.disks-ready",
    "source.disks-equal",
    "source.disks-over",
    /* migrate/destination.c */
    "destination.listening",
    "destination.return-prepared",
    "destination.receiving",
    "destination.loaded",
    "destination.owner",
    "destination.postcopy",
    "destination.done",
    "destination.returning",
    "destination.failed",
    "destination.disks-exported",
    "destination.image-opened",
    "destination.image-told",
    "destination.welcomed",
    "destination.relay-connected",
    "destination.disks-taken",
    "destination.postcopy-armed",
    "destination.stale-named",
    "destination.state-received",
    "destination.ready-sent",
    "destination.hand-over-received",
    "destination.start-asked",
    "destination.guest-started",
    "destination.hand-over-answered",
    "destination.farewell-received",
    /* migrate/record.c: what cannot be taken back, by its phase */
    "record.before.handed-over",
    "record.after.handed-over",
    "record.before.taken",
    "record.after.taken",
    "record.before.owner",
    "record.after.owner",
    "record.before.failed",
    "record.after.failed",
    /* migrate/release.c, give_back.c, keep.c and image.c */
    "release.begun",
    "release.done",
    "give-back.begun",
    "give-back.done",
    "keep.begun",
    "keep.sealed",
    "keep.named",
    "keep.keyed",
    /* hostd/visits.c */
    "hostd.visit-taken",
    "hostd.visit-begun",
    "hostd.visit-kept",
    "hostd.visit-keyless",
    /* hostd/partition/: requests and what becomes of them */
    "hostd.prepare-received",
    "hostd.prepare-recorded",
    "hostd.prepare-spawned",
    "hostd.prepare-listening",
    "hostd.start-received",
    "hostd.start-recorded",
    "hostd.start-launched",
    "hostd.engine-recorded",
    "hostd.engine-ended",
    "hostd.outcome-before",
    "hostd.outcome-after",
    "hostd.guest-resumed",
    "hostd.settle-before",
    "hostd.settle-after",
    "hostd.settle-cleaned",
    "hostd.end-recorded",
    "hostd.end-released",
    "hostd.end-removed",
    "hostd.fence-received",
    "hostd.fence-recorded",
    "hostd.forsake-received",
    "hostd.forsaken",
    "hostd.in-doubt",
    "hostd.resolve-saved",
    "hostd.resolve-resumed",
    "hostd.forecast-begun",
    "hostd.forecast-ended",
    /* hostd/partition/arrivals.c and storage_requests.c: disks that come and go with a guest */
    "hostd.arrival-placed",
    "hostd.arrival-made",
    "hostd.arrival-committed",
    "hostd.arrival-settled",
    "hostd.leave-received",
    "hostd.leave-removed",
    /* hostd/partition/storage.c: a disk that goes to another file; hostd.copy: before each step of disk_copy.c */
    "hostd.storage-received",
    "hostd.storage-recorded",
    "hostd.storage-linked",
    "hostd.storage-saved",
    "hostd.storage-outcome-before",
    "hostd.storage-outcome-after",
    "hostd.storage-concluded",
    "hostd.storage-finish-received",
    "hostd.storage-finish-removed",
    "hostd.copy.make",
    "hostd.copy.open",
    "hostd.copy.begin",
    "hostd.copy.flush",
    "hostd.copy.stop",
    "hostd.copy.complete",
    "hostd.copy.write-down",
    "hostd.copy.continue",
    "hostd.copy.strike",
    "hostd.copy.dismiss",
    "hostd.copy.close-old",
    "hostd.copy.close-target",
    "hostd.copy.moved",
    "hostd.copy.stayed",
    /* controller/jobs/runner.c: the steps of a migration, and its undoing */
    "controller.preflight.entered",
    "controller.preflight.called",
    "controller.preflight.answered",
    "controller.preflight.proposed",
    "controller.preflight.applied",
    "controller.queue.entered",
    "controller.queue.proposed",
    "controller.queue.applied",
    "controller.prepare.entered",
    "controller.prepare.called",
    "controller.prepare.answered",
    "controller.prepare.proposed",
    "controller.prepare.applied",
    "controller.allow.entered",
    "controller.allow.proposed",
    "controller.allow.applied",
    "controller.move.entered",
    "controller.move.called",
    "controller.move.answered",
    "controller.move.proposed",
    "controller.move.applied",
    "controller.finish.entered",
    "controller.finish.called",
    "controller.finish.answered",
    "controller.finish.proposed",
    "controller.finish.applied",
    "controller.undo.entered",
    "controller.undo.called",
    "controller.undo.answered",
    "controller.undo.proposed",
    "controller.undo.applied",
    "controller.outcome-told",
    /* ... of a disk's move, and of emptying a host */
    "controller.storage-check.entered",
    "controller.storage-check.called",
    "controller.storage-check.answered",
    "controller.storage-check.proposed",
    "controller.storage-check.applied",
    "controller.storage-copy.entered",
    "controller.storage-copy.called",
    "controller.storage-copy.answered",
    "controller.storage-copy.proposed",
    "controller.storage-copy.applied",
    "controller.storage-finish.entered",
    "controller.storage-finish.called",
    "controller.storage-finish.answered",
    "controller.storage-finish.proposed",
    "controller.storage-finish.applied",
    "controller.storage-undo.entered",
    "controller.storage-undo.called",
    "controller.storage-undo.answered",
    "controller.storage-undo.proposed",
    "controller.storage-undo.applied",
    "controller.evacuate-maintenance.entered",
    "controller.evacuate-maintenance.proposed",
    "controller.evacuate-maintenance.applied",
    "controller.evacuate-moves.entered",
    "controller.evacuate-moves.proposed",
    "controller.evacuate-moves.applied",
    "controller.evacuate-undo.entered",
    "controller.evacuate-undo.proposed",
    "controller.evacuate-undo.applied",
};
#define NAMES (sizeof names / sizeof *names)

bool crashpoint_watched;
static const char *file;
static pid_t companion;

void crashpoint_open(pid_t companion_pid)
{
    companion = companion_pid;
    file = getenv(CRASHPOINT_FILE);
    crashpoint_watched = file && file[0];
}

void crashpoint_print(FILE *out)
{
    for (size_t i = 0; i < NAMES; i++)
        fprintf(out, "%s\n", names[i]);
}

static bool listed(const char *name)
{
    for (size_t i = 0; i < NAMES; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The file's first line; false: there is none now. */
static bool wanted(size_t size, char *out)
{
    cleanup_fd int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    if (n <= 0)
        return false;
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return true;
}

/* The test that walks through the table looks for this. */
static void tell_unlisted(const char *name)
{
    char path[PATH_MAX];
    log_event(LOG_ERROR, "crashpoint.unlisted", "name=%s", name);
    if (snprintf(path, sizeof path, "%s.unlisted", file) >= (int)sizeof path)
        return;
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0)
        dprintf(fd, "%s\n", name);
}

void crashpoint_reached(const char *where, const char *what)
{
    char name[64], line[128], hit[PATH_MAX];
    snprintf(name, sizeof name, "%s.%s", where, what);
    if (!listed(name)) {
        tell_unlisted(name);
        return;
    }
    if (!wanted(sizeof line, line))
        return;
    char *victim = strchr(line, ' ');
    if (victim)
        *victim++ = '\0';
    if (strcmp(line, name) != 0 || snprintf(hit, sizeof hit, "%s.hit", file) >= (int)sizeof hit ||
        rename(file, hit) < 0)
        return;
    log_event(LOG_WARN, "crashpoint.reached", "name=%s victim=%s", name, victim ? victim : "self");
    if (victim && strcmp(victim, "pause") == 0)
        kill(getpid(), SIGSTOP);
    else if (victim && companion > 0)
        kill(companion, SIGKILL);
    else
        kill(getpid(), SIGKILL); /* does not return */
}
