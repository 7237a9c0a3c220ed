#include "hostd/hypervisor/qemu/copy_step.h"

/* Written down: the new file is the disk, so the guest may write to it. */
static enum copy_act step_moved(const struct copy_view *view)
{
    if (!view->running)
        return COPY_CONTINUE;
    if (view->job == COPY_JOB_CONCLUDED)
        return COPY_DISMISS;
    return view->old_open ? COPY_CLOSE_OLD : COPY_MOVED;
}

/* It will not be the disk. The guest's pause is over first of all. */
static enum copy_act step_off(const struct copy_view *view)
{
    if (!view->running)
        return COPY_CONTINUE;
    switch (view->job) {
    case COPY_JOB_RUNNING:
    case COPY_JOB_READY:
        return COPY_STRIKE;
    case COPY_JOB_ENDING:
        return COPY_WAIT;
    case COPY_JOB_CONCLUDED:
        return COPY_DISMISS;
    case COPY_JOB_NONE:
        break;
    }
    return view->target_open ? COPY_CLOSE_TARGET : COPY_STAYED;
}

static enum copy_act step_ready(const struct copy_known *known, const struct copy_view *view)
{
    if (!known->flushed)
        return COPY_FLUSH;
    return view->running ? COPY_STOP : COPY_COMPLETE;
}

enum copy_act copy_step(const struct copy_known *known, const struct copy_view *view)
{
    /* A guest found standing with its job at work: whoever stopped it may have told QEMU to change over as well. */
    bool completed = known->completed || (known->adopted && !view->running && view->job == COPY_JOB_ENDING);
    bool perhaps = known->adopted && !view->running && view->job == COPY_JOB_READY;
    if (known->written)
        return step_moved(view);
    if (view->on_target && !view->job_failed)
        return view->job == COPY_JOB_ENDING ? COPY_WAIT : COPY_WRITE_DOWN;
    if (view->job == COPY_JOB_CONCLUDED)
        return step_off(view);
    if (completed && view->job != COPY_JOB_NONE)
        return COPY_WAIT;
    if (perhaps)
        return COPY_COMPLETE;
    if (known->off || (view->job == COPY_JOB_NONE && (known->begun || known->adopted)))
        return step_off(view);
    switch (view->job) {
    case COPY_JOB_NONE:
        if (!known->made)
            return COPY_MAKE;
        return view->target_open ? COPY_BEGIN : COPY_OPEN;
    case COPY_JOB_READY:
        return step_ready(known, view);
    case COPY_JOB_RUNNING: /* a hostd that was killed over calling it off may have left the guest standing */
        return view->running ? COPY_WAIT : COPY_CONTINUE;
    case COPY_JOB_ENDING:
    case COPY_JOB_CONCLUDED:
        break;
    }
    return COPY_WAIT;
}

const char *copy_act_name(enum copy_act act)
{
    static const char *const names[] = {
        [COPY_WAIT] = "wait",
        [COPY_MAKE] = "make",
        [COPY_OPEN] = "open",
        [COPY_BEGIN] = "begin",
        [COPY_FLUSH] = "flush",
        [COPY_STOP] = "stop",
        [COPY_COMPLETE] = "complete",
        [COPY_WRITE_DOWN] = "write-down",
        [COPY_CONTINUE] = "continue",
        [COPY_STRIKE] = "strike",
        [COPY_DISMISS] = "dismiss",
        [COPY_CLOSE_OLD] = "close-old",
        [COPY_CLOSE_TARGET] = "close-target",
        [COPY_MOVED] = "moved",
        [COPY_STAYED] = "stayed",
    };
    return names[act];
}
