/* drover-migrate: the engine's program. See README.md. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cpulist.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "migrate/destination.h"
#include "migrate/dryrun.h"
#include "migrate/give_back.h"
#include "migrate/heap.h"
#include "migrate/keep.h"
#include "migrate/release.h"
#include "migrate/source.h"

static int usage(FILE *out)
{
    fprintf(out,
        "drover-migrate " DROVER_VERSION ": moves one running partition; one process per migration and side\n"
        "\n"
        "  drover-migrate source --config FILE        beside the QEMU that runs the guest\n"
        "  drover-migrate destination --config FILE   beside the QEMU that will\n"
        "  drover-migrate forecast --config FILE      beside the QEMU that runs the guest: says how it would go\n"
        "  drover-migrate keep RAM-FILE IMAGE KEY-FILE MAX-BYTES\n"
        "                                             keeps, sealed, what a guest that has left held; frees its RAM\n"
        "  drover-migrate release --config FILE       where a source was killed: lets the guest's writes through "
        "again\n"
        "  drover-migrate give-back --config FILE     where a destination was killed in post-copy: gives a guest back "
        "that has not run\n"
        "  drover-migrate --crash-points              the points at which tests kill programs\n"
        "\n"
        "Exit status: 0 moved, 1 failed (the guest runs on at the source), 2 wrong usage, 3 in doubt (see the "
        "record file).\n"
        "The configuration file holds no secret itself; its keys:\n\n");
    config_print_manual(options_keys, out);
    return out == stdout ? 0 : 2;
}

static const struct role {
    const char *name, *log_name;
    int (*run)(const struct options *options);
} roles[] = {
    {"source", "migrate-source", source_run},
    {"destination", "migrate-destination", destination_run},
    {"forecast", "migrate-forecast", dryrun_run},
    {"release", "migrate-release", release_run},
    {"give-back", "migrate-give-back", give_back_run},
};

static const struct role *role_find(const char *name)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(roles[i].name, name) == 0)
            return &roles[i];
    return NULL;
}

/* Before there is any other thread. -1: that is no list of cores. */
static int keep_to_cores(const char *cores)
{
    struct err err;
    cpu_set_t set;
    if (!cores[0])
        return 0;
    if (cpulist_parse(cores, &err, &set) < 0) {
        fprintf(stderr, "drover-migrate: limits.cores: %s\n", err.message);
        return -1;
    }
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        log_event(LOG_WARN, "cores.unavailable", "cores=%s reason=%s", cores, LOG_QUOTE(strerror(errno)));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc == 2 && strcmp(argv[1], "--crash-points") == 0) {
        crashpoint_print(stdout);
        return 0;
    }
    if (argc == 2 + KEEP_ARGUMENTS && strcmp(argv[1], "keep") == 0)
        return keep_run(argv + 2);
    const struct role *role = argc == 4 && strcmp(argv[2], "--config") == 0 ? role_find(argv[1]) : NULL;
    if (!role)
        return usage(stderr);
    struct options options = {0};
    struct err err;
    if (config_load(argv[3], options_keys, &err, &options) < 0) {
        fprintf(stderr, "drover-migrate: %s\n", err.message);
        return 2;
    }
    int level = log_level_parse(options.log_level);
    log_setup(role->log_name, level < 0 ? LOG_INFO : (enum log_level)level);
    crashpoint_open((pid_t)options.qemu_pid);
    signal(SIGPIPE, SIG_IGN); /* whoever listened to our events may be gone */
    heap_keep();
    int status = keep_to_cores(options.cores) < 0 ? 2 : role->run(&options);
    config_free(options_keys, &options);
    return status;
}
