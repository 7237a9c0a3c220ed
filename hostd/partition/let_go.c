/* What has to be done for the guest in the stead of an engine that has ended, before anybody decides.
 *
 * A source's: it watched the guest's memory. One that exited has let go of it before. A killed one has a
 * guardian for that, which may have been killed with it; then the guest's next write waits for good, perhaps one of the
 * thread that answers us: so a program of its own lets go of the guest's memory before anything is asked of the guest
 * (migrate/README.md, trackers).
 *
 * A destination's, with pages of the guest still at its source: the guest is lost, unless it has not run here. Whether
 * it has QEMU is asked over the engine's monitor, by a program that knows the engine's record and takes it back where
 * it has not; the record then says what follows (migrate/README.md, post-copy). */
#include <signal.h>
#include <sys/wait.h>

#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "hostd/text.h"

#define RELEASES_MAX 3u

static bool release(struct partition *p);

static void over(struct partition *p)
{
    p->aftermath = AFTERMATH_NONE;
    p->released(p);
}

static void release_ended(void *user, int status)
{
    struct partition *p = user;
    if (status != 0)
        log_event(LOG_WARN, "guest.not_let_go", "vm=%s status=%d", p->record.vm_id, status);
    child_free(p->releaser);
    p->releaser = NULL;
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM; /* by which it ends itself */
    if (!killed || ++p->releases >= RELEASES_MAX || !release(p))
        over(p);
}

/* False: it cannot be started. */
static bool release(struct partition *p)
{
    struct err err;
    const struct engine_config config = {
        .program = p->all->env.options->engine,
        .directory = p->directory,
        .role = p->record.migration.incoming ? ENGINE_DESTINATION : ENGINE_SOURCE,
    };
    if (engine_let_go(p->all->env.loop, &config, release_ended, p, &err, &p->releaser) == 0)
        return true;
    log_event(LOG_WARN, "guest.not_let_go", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
    return false;
}

void let_go_begin(struct partition *p, void (*released)(struct partition *p))
{
    ENSURE(p->aftermath == AFTERMATH_NONE);
    p->aftermath = AFTERMATH_RELEASE;
    p->released = released;
    p->releases = 0;
    if (!release(p))
        over(p);
}

void let_go_drop(struct partition *p)
{
    if (p->aftermath != AFTERMATH_RELEASE)
        return;
    child_abandon(p->releaser);
    p->releaser = NULL;
    p->aftermath = AFTERMATH_NONE;
}

static void migration_released(struct partition *p)
{
    char why[RECORD_TEXT_MAX];
    text_print(why, sizeof why, p->guest || !p->record.detail[0] ? p->end_detail : p->record.detail);
    p->end_detail[0] = '\0';
    migration_decide(p, why);
}

void migration_engine_dead(struct partition *p, bool in_order, const char *why)
{
    enum record_phase phase = engine_record(p->directory, p->record.migration.id);
    if (!decide_let_go(p->record.migration.incoming, phase, p->guest != NULL, in_order)) {
        migration_decide(p, why);
        return;
    }
    text_print(p->end_detail, sizeof p->end_detail, why);
    let_go_begin(p, migration_released);
}
