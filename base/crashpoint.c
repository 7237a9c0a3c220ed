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
    "source.precopy",
    "source.switching",
    "source.handed-over",
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
    /* migrate/destination.c */
    "destination.listening",
    "destination.receiving",
    "destination.loading",
    "destination.started",
    "destination.postcopy",
    "destination.done",
    "destination.failed",
    "destination.welcomed",
    "destination.postcopy-armed",
    "destination.stale-named",
    "destination.state-received",
    "destination.ready-sent",
    "destination.hand-over-received",
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
    "hostd.resolve-saved",
    "hostd.resolve-resumed",
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

void crashpoint_reached(const char *where, const char *what)
{
    char name[64], line[128], hit[PATH_MAX];
    snprintf(name, sizeof name, "%s.%s", where, what);
    if (!listed(name)) { /* the test that walks through the table looks for this */
        log_event(LOG_ERROR, "crashpoint.unlisted", "name=%s", name);
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
    if (victim && companion > 0) {
        kill(companion, SIGKILL);
        return;
    }
    kill(getpid(), SIGKILL); /* does not return */
}
