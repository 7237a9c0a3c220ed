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
    char root[256]; /* where "drover/" is made */
    bool v2;
    bool counts_cpu;
};

struct cgroups {
    char scope[24];
    struct cgroup_tree trees[CGROUP_TREES_MAX];
    size_t count;
    struct left *left;
    struct loop_timer *again;
};

static void tree_path(const struct cgroups *c, const struct cgroup_tree *tree, const char *vm_id, const char *file,
    char out[static PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/drover/%s-%s%s%s", tree->root, c->scope, vm_id, file[0] ? "/" : "", file);
}

/* Takes the tree when we may make cgroups in it. */
static void tree_try(struct cgroups *c, const struct mntent *mount, bool v2, bool counts_cpu)
{
    char path[PATH_MAX];
    if (c->count == CGROUP_TREES_MAX || strlen(mount->mnt_dir) >= sizeof c->trees[0].root)
        return;
    snprintf(path, sizeof path, "%s/drover", mount->mnt_dir);
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return;
    if (access(path, W_OK) < 0)
        return;
    struct cgroup_tree *tree = &c->trees[c->count++];
    *tree = (struct cgroup_tree){.v2 = v2, .counts_cpu = counts_cpu};
    strcpy(tree->root, mount->mnt_dir);
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
    if (rmdir(left->path) == 0 || errno == ENOENT)
        return true;
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
    snprintf(path, sizeof path, "%s/drover", tree->root);
    DIR *all = opendir(path);
    const struct dirent *one;
    while (all && (one = readdir(all)))
        if (strncmp(one->d_name, c->scope, strlen(c->scope)) == 0 && one->d_name[strlen(c->scope)] == '-')
            unlinkat(dirfd(all), one->d_name, AT_REMOVEDIR);
    if (all)
        closedir(all);
}

struct cgroups *cgroups_open(uv_loop_t *loop, const char *scope)
{
    struct cgroups *c = mem_zalloc(sizeof *c);
    snprintf(c->scope, sizeof c->scope, "%08" PRIx64, text_hash(scope, (char *)NULL) & 0xffffffffu);
    c->again = loop_timer_new(loop, try_again, c);
    trees_find(c, false);
    if (c->count == 0)
        trees_find(c, true);
    if (c->count == 0)
        log_event(LOG_INFO, "cgroups.missing", "reason=%s", LOG_QUOTE("none can be written; using /proc"));
    for (size_t i = 0; i < c->count; i++)
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
    for (size_t i = 0; i < c->count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/drover", c->trees[i].root);
        rmdir(path); /* another host's, or running partitions', cgroups keep it */
    }
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
    for (size_t i = 0; i < c->count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/drover", c->trees[i].root);
        mkdir(path, 0755); /* another host's last partition may have taken it away */
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

int cgroup_cpu_ns(struct cgroups *c, const char *vm_id, uint64_t *out)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct cgroup_tree *tree = &c->trees[i];
        if (!tree->counts_cpu)
            continue;
        char path[PATH_MAX];
        cleanup_buf struct buf text = {0};
        uint64_t value;
        tree_path(c, tree, vm_id, tree->v2 ? "cpu.stat" : "cpuacct.usage", path);
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
    for (size_t i = 0; i < c->count; i++) {
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
