#include "hostd/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "hostd/scope.h"
#include "hostd/text.h"

#define AGAIN_MS    20
#define AGAIN_TIMES 250 /* then it is said, and left to the next hostd */

/* A cgroup that could not be removed yet. */
struct left {
    struct left *next;
    unsigned tries;
    char path[PATH_MAX];
};

struct cgroup_tree {
    char root[256]; /* where it is mounted */
    bool v2;
    bool counts_cpu;
};

struct cgroups {
    char host[24];         /* "drover-" and what keeps the hosts on one machine apart */
    struct scopes *scopes; /* systemd makes them; NULL: we do */
    struct cgroup_tree trees[CGROUP_TREES_MAX];
    size_t count;
    struct left *left;
    struct loop_timer *again;
};

/* Ours. `vm_id` "": of all of this host's guests. */
static void tree_path(const struct cgroups *c, const struct cgroup_tree *tree, const char *vm_id, const char *file,
    char out[static PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s%s%s%s%s", tree->root, c->host, vm_id[0] ? "/" : "", vm_id, file[0] ? "/" : "", file);
}

/* By its process, too: systemd may not be through with the guest's last one yet. */
static void scope_name(const struct cgroups *c, const char *vm_id, pid_t pid, char out[static 128])
{
    snprintf(out, 128, "%s-%s-%d.scope", c->host, vm_id, (int)pid);
}

/* Takes the tree when cgroups can be made in it. */
static void tree_try(struct cgroups *c, const struct mntent *mount, bool v2, bool counts_cpu)
{
    char path[PATH_MAX];
    struct cgroup_tree tree = {.v2 = v2, .counts_cpu = counts_cpu};
    if (c->count == CGROUP_TREES_MAX || strlen(mount->mnt_dir) >= sizeof tree.root)
        return;
    strcpy(tree.root, mount->mnt_dir);
    tree_path(c, &tree, "", "", path);
    if (!c->scopes && ((mkdir(path, 0755) < 0 && errno != EEXIST) || access(path, W_OK) < 0))
        return;
    c->trees[c->count++] = tree;
}

static void trees_find(struct cgroups *c, bool v2)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    if (!mounts)
        return;
    struct mntent *mount;
    while ((mount = getmntent(mounts))) {
        bool cpuacct = hasmntopt(mount, "cpuacct"), cpu = hasmntopt(mount, "cpu"), memory = hasmntopt(mount, "memory");
        if (v2 && strcmp(mount->mnt_type, "cgroup2") == 0 && c->count == 0)
            tree_try(c, mount, true, true);
        else if (!v2 && strcmp(mount->mnt_type, "cgroup") == 0 && (cpuacct || cpu || memory))
            tree_try(c, mount, false, cpuacct);
    }
    endmntent(mounts);
}

/* true: over, whether it is gone or not. */
static bool left_try(struct left *left)
{
    if (rmdir(left->path) == 0 || errno == ENOENT) {
        *strrchr(left->path, '/') = '\0';
        rmdir(left->path); /* the host's, unless it has other guests */
        return true;
    }
    if (errno == EBUSY && ++left->tries < AGAIN_TIMES)
        return false;
    log_event(LOG_WARN, "cgroup.left", "path=%s reason=%s", left->path, LOG_QUOTE(strerror(errno)));
    return true;
}

static void left_drop(struct cgroups *c, struct left *left)
{
    LL_DELETE(c->left, left);
    free(left);
}

static void try_again(void *user)
{
    struct cgroups *c = user;
    struct left *left, *next;
    LL_FOREACH_SAFE(c->left, left, next)
    {
        if (left_try(left))
            left_drop(c, left);
    }
    if (!c->left)
        loop_timer_stop(c->again);
}

/* What is not empty belongs to a partition that runs. */
static void tree_sweep(const struct cgroups *c, const struct cgroup_tree *tree)
{
    char path[PATH_MAX];
    tree_path(c, tree, "", "", path);
    DIR *all = opendir(path);
    const struct dirent *one;
    while (all && (one = readdir(all)))
        if (one->d_type == DT_DIR && one->d_name[0] != '.')
            unlinkat(dirfd(all), one->d_name, AT_REMOVEDIR);
    if (all)
        closedir(all);
    rmdir(path);
}

struct cgroups *cgroups_open(uv_loop_t *loop, const char *directory)
{
    char log[PATH_MAX];
    struct cgroups *c = mem_zalloc(sizeof *c);
    snprintf(c->host, sizeof c->host, "drover-%08" PRIx64, text_hash(directory, (char *)NULL) & 0xffffffffu);
    snprintf(log, sizeof log, "%s/scopes.log", directory);
    if (scope_possible())
        c->scopes = scopes_open(loop, log);
    c->again = loop_timer_new(loop, try_again, c);
    trees_find(c, false);
    if (c->count == 0)
        trees_find(c, true);
    if (c->count == 0)
        log_event(LOG_INFO, "cgroups.missing", "reason=%s", LOG_QUOTE("none can be written; using /proc"));
    for (size_t i = 0; i < c->count && !c->scopes; i++)
        tree_sweep(c, &c->trees[i]);
    return c;
}

void cgroups_close(struct cgroups *c)
{
    if (!c)
        return;
    while (c->left) {
        left_try(c->left);
        left_drop(c, c->left);
    }
    scopes_close(c->scopes);
    loop_timer_free(c->again);
    free(c);
}

static void left_forget(struct cgroups *c, const char *path)
{
    struct left *left, *next;
    LL_FOREACH_SAFE(c->left, left, next)
    {
        if (strcmp(left->path, path) == 0)
            left_drop(c, left);
    }
}

size_t cgroup_make(struct cgroups *c, const char *vm_id, int fds[static CGROUP_TREES_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < c->count && !c->scopes; i++) {
        char path[PATH_MAX];
        tree_path(c, &c->trees[i], "", "", path);
        mkdir(path, 0755);
        tree_path(c, &c->trees[i], vm_id, "", path);
        left_forget(c, path);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            continue;
        tree_path(c, &c->trees[i], vm_id, "cgroup.procs", path);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            fds[count++] = fd;
    }
    return count;
}

/* Where both say the same, nobody has put the process anywhere since we started it. */
static bool where_we_are(pid_t pid)
{
    char path[64];
    cleanup_buf struct buf own = {0};
    cleanup_buf struct buf its = {0};
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    return file_read("/proc/self/cgroup", 65536, NULL, &own) == 0 && file_read(path, 65536, NULL, &its) == 0 &&
           strcmp(buf_str(&own), buf_str(&its)) == 0;
}

void cgroup_entrust(struct cgroups *c, const char *vm_id, const char *name, pid_t pid)
{
    char unit[128], description[128];
    if (!c || !c->scopes || !where_we_are(pid))
        return;
    scope_name(c, vm_id, pid, unit);
    snprintf(description, sizeof description, "Drover VM %s", name);
    scope_ask(c->scopes, unit, description, pid);
}

static void cpu_path(
    const struct cgroups *c, const struct cgroup_tree *tree, const char *vm_id, pid_t pid, char out[static PATH_MAX])
{
    char unit[128];
    const char *file = tree->v2 ? "cpu.stat" : "cpuacct.usage";
    if (!c->scopes) {
        tree_path(c, tree, vm_id, file, out);
        return;
    }
    scope_name(c, vm_id, pid, unit);
    snprintf(out, PATH_MAX, "%s/%s/%s/%s", tree->root, SCOPE_SLICE, unit, file);
}

int cgroup_cpu_ns(struct cgroups *c, const char *vm_id, pid_t pid, uint64_t *out)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct cgroup_tree *tree = &c->trees[i];
        if (!tree->counts_cpu)
            continue;
        char path[PATH_MAX];
        cleanup_buf struct buf text = {0};
        uint64_t value;
        cpu_path(c, tree, vm_id, pid, path);
        if (file_read(path, 4096, NULL, &text) < 0 ||
            sscanf(buf_str(&text), tree->v2 ? "usage_usec %" SCNu64 : "%" SCNu64, &value) != 1)
            continue;
        *out = tree->v2 ? value * 1000 : value;
        return 0;
    }
    return -1;
}

void cgroup_remove(struct cgroups *c, const char *vm_id)
{
    for (size_t i = 0; i < c->count && !c->scopes; i++) {
        struct left *left = mem_zalloc(sizeof *left);
        tree_path(c, &c->trees[i], vm_id, "", left->path);
        left_forget(c, left->path);
        LL_PREPEND(c->left, left);
        if (left_try(left))
            left_drop(c, left);
    }
    if (c->left)
        loop_timer_start(c->again, AGAIN_MS, AGAIN_MS);
}
