/* Founding a cluster: the first entry of its log, on the disk of one of its first members. It happens when it is asked
 * for and at no other time: a member that found its directory empty at a start and wrote the first entry anew would
 * vote without what it had acknowledged, and so let the others lose it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "raft/internal.h"
#include "raft/logdir.h"

int replica_check(const struct replica_options *options, const struct replica_member *members, size_t count, bool join,
    struct err *err)
{
    size_t i = 0;
    if (!options->name || !options->name[0] || strlen(options->name) >= WIRE_PRINCIPAL_MAX)
        return err_set(err, ERR_INVALID, "a member's name must have 1 to %d characters", WIRE_PRINCIPAL_MAX - 1);
    if (count > 0 && member_check_all(members, count, err))
        return -1;
    while (i < count && strcmp(members[i].name, options->name) != 0)
        i++;
    if (!join && i == count)
        return err_set(err, ERR_INVALID, "the list of members does not have %s itself", options->name);
    return 0;
}

int replica_no_log(struct err *err)
{
    return err_set(err, ERR_NOT_FOUND,
        "there is no log here: --found makes that of a new cluster; a member that lost its log is removed, and added "
        "again with cluster.join = true");
}

int replica_lock(const char *path, bool make, struct err *err, int *out)
{
    cleanup_fd int fd = -1;
    if (make && file_make_dirs(path, 0700, err))
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        (void)replica_no_log(err);
        return err_wrap(err, "the raft directory %s", path);
    }
    if (fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "the raft directory %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return err_errno(err, ERR_BUSY, errno, "the raft directory %s is in use by another process", path);
    *out = fd;
    fd = -1;
    return 0;
}

/* In the order of the ids, so that every member writes the same first entry, whatever the order of its list. */
static int configure(
    const struct replica_member *members, size_t count, struct raft_configuration *configuration, struct err *err)
{
    char text[MEMBER_TEXT_MAX];
    raft_id last = 0;
    int status = 0;
    for (size_t done = 0; done < count && status == 0; done++) {
        const struct replica_member *next = NULL;
        for (size_t i = 0; i < count; i++)
            if (member_id(members[i].name) > last && (!next || member_id(members[i].name) < member_id(next->name)))
                next = &members[i];
        ENSURE(next && member_format(next, err, text) == 0); /* the list has been checked */
        last = member_id(next->name);
        status = raft_configuration_add(configuration, last, text, member_role_to_raft(next->role));
    }
    return status == 0 ? 0 : err_set(err, ERR_INTERNAL, "the first entry of the log: %s", raft_strerror(status));
}

static int bootstrap(struct raft *raft, const struct replica_member *members, size_t count, struct err *err)
{
    struct raft_configuration configuration;
    raft_configuration_init(&configuration);
    int rc = configure(members, count, &configuration, err);
    int status = rc == 0 ? raft_bootstrap(raft, &configuration) : 0;
    raft_configuration_close(&configuration);
    if (status != 0)
        return err_set(err, ERR_INTERNAL, "the first entry of the log: %s", raft_strerror(status));
    return rc;
}

static void no_network(void *user)
{
    (void)user;
}

static void closed(struct raft *raft)
{
    (void)raft;
}

/* libraft for as long as it takes to write one entry. */
static int write_first(
    const char *directory, const char *name, const struct replica_member *members, size_t count, struct err *err)
{
    const struct disk_network network = {.stop = no_network};
    struct raft_fsm fsm = {.version = 1};
    struct raft raft;
    struct disk *disk;
    uv_loop_t loop;
    ENSURE(uv_loop_init(&loop) == 0);
    int rc = disk_new(&loop, directory, 0, true, &network, err, &disk);
    if (rc == 0) {
        int status = raft_init(&raft, disk_io(disk), &fsm, member_id(name), name);
        if (status == 0) {
            rc = bootstrap(&raft, members, count, err);
            raft_close(&raft, closed);
            uv_run(&loop, UV_RUN_DEFAULT);
        } else
            rc = err_set(err, ERR_INTERNAL, "%s", raft_strerror(status));
        disk_free(disk);
    }
    loop_close(&loop);
    return rc;
}

int replica_found(
    const struct replica_options *options, const struct replica_member *members, size_t count, struct err *err)
{
    cleanup_fd int lock = -1;
    if (replica_check(options, members, count, false, err) || replica_lock(options->directory, true, err, &lock))
        return -1;
    if (logdir_found_begin(options->directory, err) ||
        write_first(options->directory, options->name, members, count, err) ||
        logdir_found_end(options->directory, err))
        return err_wrap(err, "the raft directory %s", options->directory);
    return 0;
}
