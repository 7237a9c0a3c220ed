/* What to do next about a disk that is being copied. Pure: QEMU is looked at anew before every step, so that it makes
 * no difference whether this hostd or an earlier one began, or an event of QEMU was missed.
 *
 *   make file -> open -> begin -> (copying) -> flush -> stop guest -> complete -> write down -> continue -> close old
 *
 * Invariant: from `complete` until `write down` the guest stands still. So while nothing is written down the guest has
 * written to nothing but the old file or to both. */
#ifndef HOSTD_HYPERVISOR_QEMU_COPY_STEP_H
#define HOSTD_HYPERVISOR_QEMU_COPY_STEP_H

#include <stdbool.h>

enum copy_job {
    COPY_JOB_NONE,
    COPY_JOB_RUNNING,   /* not all is copied yet */
    COPY_JOB_READY,     /* both files are equal, and are kept so */
    COPY_JOB_ENDING,    /* on its way to its end, whichever */
    COPY_JOB_CONCLUDED, /* over, and waits to be dismissed */
};

/* As QEMU shows it. */
struct copy_view {
    enum copy_job job;
    bool job_failed;  /* CONCLUDED without changing over */
    bool on_target;   /* the guest's device uses the new file */
    bool target_open; /* QEMU has it open */
    bool old_open;
    bool running; /* the guest executes */
};

/* As hostd knows it. */
struct copy_known {
    bool adopted;   /* begun by an earlier hostd, which may have been killed at any step */
    bool made;      /* the file is there, with its size */
    bool begun;     /* QEMU's job was asked for */
    bool flushed;   /* most of what was written is on stable storage already */
    bool completed; /* QEMU was told to change over */
    bool written;   /* on_switched was written down */
    bool off;       /* cancelled, or a step has failed */
};

enum copy_act {
    COPY_WAIT,
    COPY_MAKE,
    COPY_OPEN,
    COPY_BEGIN,
    COPY_FLUSH,
    COPY_STOP,
    COPY_COMPLETE,
    COPY_WRITE_DOWN,
    COPY_CONTINUE,
    COPY_STRIKE, /* call QEMU's job off */
    COPY_DISMISS,
    COPY_CLOSE_OLD,
    COPY_CLOSE_TARGET,
    COPY_MOVED,  /* over: the guest uses the new file */
    COPY_STAYED, /* over: the guest uses the old file */
};

enum copy_act copy_step(const struct copy_known *known, const struct copy_view *view);
const char *copy_act_name(enum copy_act act);

#endif
