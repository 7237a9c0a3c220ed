#include "migrate/keep.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "migrate/image.h"

static int keep(const char *ram_path, const char *path, const char *key_path, const char *max, struct err *err)
{
    struct stat st;
    struct ram ram;
    uint64_t max_bytes, began_ns = clock_now_ns();
    if (config_parse_size(max, err, &max_bytes) < 0)
        return -1;
    if (stat(ram_path, &st) < 0)
        return err_errno(err, ERR_NOT_FOUND, errno, "RAM file %s", ram_path);
    if (ram_open(ram_path, (uint64_t)st.st_size, err, &ram) < 0)
        return -1;
    int rc = image_keep(&ram, path, key_path, max_bytes, err);
    ram_close(&ram);
    if (rc == 0 && stat(path, &st) == 0)
        log_event(LOG_INFO, "image.kept", "path=%s disk_bytes=%" PRIu64 " duration_us=%" PRIu64, path,
            (uint64_t)st.st_blocks * 512, (clock_now_ns() - began_ns) / 1000);
    return rc;
}

int keep_run(char *const argv[])
{
    struct err err;
    log_setup("migrate-keep", LOG_INFO);
    crashpoint_open(0);
    /* A hostd that begins anew removes what it finds half done, so nobody may be at work on it. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Only what guests and their moves leave of the cores, to which no share of CPU time is counted. */
    (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    int rc = keep(argv[0], argv[1], argv[2], argv[3], &err);
    unlink(argv[0]);
    if (rc == 0)
        return 0;
    log_event(LOG_WARN, "image.not_kept", "code=%s message=%s", err_name(err.code), LOG_QUOTE(err.message));
    return 1;
}
