#include "migrate/release.h"

#include <unistd.h>

#include "base/crashpoint.h"
#include "base/log.h"
#include "migrate/tracker.h"

#define RELEASE_S 5 /* a guardian is gone within moments, but may have been stopped: whoever waits for us goes on */

int release_run(const struct options *options)
{
    struct ram ram = {.fd = -1};
    struct err err;
    (void)alarm(RELEASE_S);
    int rc = ram_open(options->ram_file, options->ram_bytes, &err, &ram);
    crashpoint("release", "begun");
    if (rc == 0)
        rc = tracker_release((pid_t)options->qemu_pid, &ram, &err);
    if (rc < 0)
        log_event(
            err.code == ERR_UNSUPPORTED ? LOG_DEBUG : LOG_WARN, "release.failed", "message=%s", LOG_QUOTE(err.message));
    crashpoint("release", "done");
    ram_close(&ram);
    return rc < 0 && err.code != ERR_UNSUPPORTED;
}
