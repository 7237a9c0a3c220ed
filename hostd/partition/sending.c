/* After a hand-over with post-copy the destination still needs pages that are only in the RAM file here: so an engine
 * that died is started again, as often as needed and whether QEMU lives or not, until all is sent, the engine gives up
 * by itself, or the controllers say that nobody needs them. Each try that came to nothing makes the next one later. */
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "hostd/partition/private.h"

#define AGAIN_MS     100u /* doubled each time */
#define AGAIN_MS_MAX 5000u

/* By itself, and it has said so; starting it again would change nothing. */
static bool gave_up(const struct partition *p)
{
    return p->last.failed && strcmp(p->last.phase, "doubt") == 0;
}

static void sending_try(void *user)
{
    struct partition *p = user;
    struct err err;
    const struct engine_config config = {
        .program = p->all->env.options->engine,
        .migration_id = p->record.migration.id,
        .directory = p->directory,
    };
    struct engine_events events = migration_engine_events;
    events.user = p;
    if (p->record.state != STATE_OUTGOING || p->engine)
        return;
    if (engine_resume(p->all->env.loop, &config, &events, &err, &p->engine) < 0) {
        log_event(LOG_WARN, "migration.not_resumed", "migration=%s vm=%s reason=%s", p->record.migration.id,
            p->record.vm_id, LOG_QUOTE(err.message));
        migration_decide(p, err.message);
        return;
    }
    quotas_divide(p->all, NULL);
    log_event(LOG_WARN, "migration.resumed", "migration=%s vm=%s", p->record.migration.id, p->record.vm_id);
}

bool sending_resume(struct partition *p)
{
    char ram[PATH_MAX];
    paths_ram(p->all->env.options->memory_directory, p->record.vm_id, ram);
    if (p->stopping || p->forsaken || gave_up(p) || access(ram, F_OK) < 0)
        return false;
    uint64_t after_ms = 0;
    for (uint32_t i = 0; i < p->engine_resumes && after_ms < AGAIN_MS_MAX; i++)
        after_ms = after_ms ? after_ms * 2 : AGAIN_MS;
    p->engine_resumes++;
    if (!p->again)
        p->again = loop_timer_new(p->all->env.loop, sending_try, p);
    loop_timer_start(p->again, after_ms < AGAIN_MS_MAX ? after_ms : AGAIN_MS_MAX, 0);
    return true;
}

void sending_progressed(struct partition *p)
{
    p->engine_resumes = 0;
}
