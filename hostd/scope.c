#include "hostd/scope.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/log.h"
#include "hostd/child.h"

#define SYSTEMD        "org.freedesktop.systemd1"
#define MANAGER        "org.freedesktop.systemd1.Manager"
#define TASKS_INFINITE "18446744073709551615"

/* A scope that is being asked for. */
struct asking {
    struct scopes *all;
    struct asking *prev, *next;
    struct child *child;
    char unit[128];
};

struct scopes {
    uv_loop_t *loop;
    char log_path[PATH_MAX];
    struct asking *list;
};

/* As sd_booted(3). */
bool scope_possible(void)
{
    struct stat st;
    return lstat("/run/systemd/system", &st) == 0 && S_ISDIR(st.st_mode);
}

struct scopes *scopes_open(uv_loop_t *loop, const char *log_path)
{
    struct scopes *scopes = mem_zalloc(sizeof *scopes);
    scopes->loop = loop;
    snprintf(scopes->log_path, sizeof scopes->log_path, "%s", log_path);
    unlink(log_path); /* of an earlier hostd */
    return scopes;
}

static void asking_free(struct asking *asking)
{
    DL_DELETE(asking->all->list, asking);
    child_free(asking->child);
    free(asking);
}

void scopes_close(struct scopes *scopes)
{
    struct asking *asking, *next;
    if (!scopes)
        return;
    DL_FOREACH_SAFE(scopes->list, asking, next)
    asking_free(asking);
    free(scopes);
}

static void refused(const char *unit, const char *why)
{
    log_event(LOG_WARN, "guest.unscoped", "unit=%s reason=%s consequence=%s", unit, LOG_QUOTE(why),
        LOG_QUOTE("the guest runs on as a part of drover-hostd's own unit"));
}

static void answered(void *user, int status)
{
    struct asking *asking = user;
    char line[200];
    child_last_line(asking->all->log_path, sizeof line, line);
    if (status != 0)
        refused(asking->unit, line[0] ? line : "busctl failed");
    else
        log_event(LOG_DEBUG, "guest.scoped", "unit=%s", asking->unit);
    asking_free(asking);
}

/* Slice, shares and limits: what the administrator sets, for one scope or for drover.slice. Before: what is started
 * before is stopped after. */
static int ask(struct asking *asking, const char *description, pid_t pid, struct err *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", (int)pid);
    const char *const words[] = {"busctl", "--system", "--quiet", "--timeout=10", "call", SYSTEMD,
        "/org/freedesktop/systemd1", MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", asking->unit, "fail",
        /* properties */ "8", "PIDs", "au", "1", number, "Slice", "s", SCOPE_SLICE, "Description", "s", description,
        "CollectMode", "s", "inactive-or-failed", "CPUAccounting", "b", "true", "MemoryAccounting", "b", "true",
        "TasksMax", "t", TASKS_INFINITE, "Before", "as", "1", "drover-guests.service", /* other units */ "0", NULL};
    struct child_options options = {.argv = (char *const *)(uintptr_t)words, .log_path = asking->all->log_path};
    if (child_fork(asking->all->loop, &options, answered, asking, err, &asking->child) < 0)
        return -1;
    return child_release(asking->child, err);
}

void scope_ask(struct scopes *scopes, const char *unit, const char *description, pid_t pid)
{
    struct err err;
    struct asking *asking = mem_zalloc(sizeof *asking);
    asking->all = scopes;
    snprintf(asking->unit, sizeof asking->unit, "%s", unit);
    DL_APPEND(scopes->list, asking);
    if (ask(asking, description, pid, &err) == 0)
        return;
    refused(unit, err.message);
    asking_free(asking);
}
