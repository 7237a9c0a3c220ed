/* Automatic balancing: the optimizer's first move becomes a job like any other, with its reason. */
#include <inttypes.h>

#include "base/clock.h"
#include "controller/controller.h"
#include "controller/random.h"

static void move_done(void *user, const struct err *err, const Drover__CommandResult *result)
{
    (void)user;
    if (err)
        log_event(LOG_WARN, "optimizer.move-lost", "cause=%s", LOG_QUOTE(err->message));
    else if (result->error)
        log_event(LOG_WARN, "optimizer.move-refused", "cause=%s", LOG_QUOTE(result->error->message));
    else
        log_event(LOG_INFO, "optimizer.move-begun", "job=%" PRIu64, result->job_id);
}

void balance_tick(struct controller *c)
{
    struct placement_move move;
    char id[RANDOM_UUID];
    uint64_t now_ms = clock_now_ms();
    if (!placement_tick(c->placement, now_ms, clock_wall_ms(), &move))
        return;
    placement_moved(c->placement, move.vm_id, now_ms);
    log_event(LOG_INFO, "optimizer.decided", "vm=%s from=%s to=%s reason=%s", move.vm, move.from_host, move.to_host,
        LOG_QUOTE(move.reason));
    Drover__Command *command = proposer_command();
    command->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
    random_uuid(id);
    command->job_create = job_migration_new(
        &(struct job_migration_order){move.vm_id, move.vm, move.from_host, move.to_host, id, "optimizer", move.reason});
    proposer_submit(c->replica, command, move_done, NULL);
}
