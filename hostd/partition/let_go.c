/* A source engine has ended. Was it killed, and its guardian, too, then the guest's next write waits for good: a
 * program of its own lets go of the guest's memory before anything is asked of the guest (migrate/README.md, trackers).
 */
#include <signal.h>
#include <sys/wait.h>

#include "base/log.h"
#include "hostd/partition/private.h"
#include "hostd/text.h"

#define RELEASES_MAX 3u

static bool release(struct partition *p);

static void let_go(void *user, int status)
{
    struct partition *p = user;
    char why[RECORD_TEXT_MAX];
    if (status != 0)
        log_event(LOG_WARN, "guest.not_let_go", "vm=%s status=%d", p->record.vm_id, status);
    child_free(p->releaser);
    p->releaser = NULL;
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM; /* by which it ends itself */
    if (killed && ++p->releases < RELEASES_MAX && release(p))
        return;
    p->resuming = false;
    text_print(why, sizeof why, p->guest || !p->record.detail[0] ? p->end_detail : p->record.detail);
    p->end_detail[0] = '\0';
    migration_decide(p, why);
}

/* False: it cannot be started. */
static bool release(struct partition *p)
{
    struct err err;
    const struct engine_config config = {.program = p->all->env.options->engine, .directory = p->directory};
    if (engine_let_go(p->all->env.loop, &config, let_go, p, &err, &p->releaser) == 0)
        return true;
    log_event(LOG_WARN, "guest.not_let_go", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
    return false;
}

/* One that has said how it ended has let go of the guest's memory before. A killed one has a guardian for that, which
 * may have been killed with it; then the guest's next write waits for good, perhaps one of the thread that answers us.
 */
void migration_engine_dead(struct partition *p, const char *why)
{
    if (!p->guest || p->record.migration.incoming || p->last.done || p->last.failed) {
        migration_decide(p, why);
        return;
    }
    text_print(p->end_detail, sizeof p->end_detail, why);
    p->resuming = true;
    p->releases = 0;
    if (release(p))
        return;
    p->resuming = false;
    migration_decide(p, why);
}
