/* Requests whose files are looked at by a thread of the loop's pool, because storage that hangs must not hang hostd. */
#ifndef HOSTD_PARTITION_FILES_H
#define HOSTD_PARTITION_FILES_H

#include "hostd/partition/private.h"

struct files {
    uv_work_t work;
    struct files *prev, *next;
    struct partitions *ps; /* NULL: hostd closes, and nobody is answered */
    void (*look)(struct files *files);
    void (*seen)(struct files *files); /* on the loop; sees to the answer */
    struct wire_request *request;
    struct action *action; /* answers in the request's stead, or NULL */
    char vm_id[PATHS_ID_MAX];
    uint64_t generation;
    struct record_storage move;
    struct place_where checked_at; /* STORAGE_MOVE: what STORAGE_CHECK said */
    bool keep;
    const char *directories; /* lent: the options outlive the loop */
    char target[PATH_MAX];
    int said; /* of `look` */
    struct err err;
    char settled[RECORD_PATH_MAX]; /* STORAGE_QUERY: as in the message */
    bool settled_there;            /* which is the target, and can be seen */
    bool unasked;                  /* nobody waits for an answer */
    char *paths[SPEC_DISKS_MAX];   /* STORAGE_LEAVE: those to go; owned */
    size_t path_count;
};

/* For `request`, or for `action` in its stead. Take: files_start() or files_free(). */
struct files *files_new(struct partitions *ps, struct wire_request *request, struct action *action);
void files_free(struct files *files);
/* `look` on a thread, then `seen` on the loop, which sees to the answer; freed after that. */
void files_start(struct files *files, void (*look)(struct files *), void (*seen)(struct files *));
/* True, and answered: the same has been asked before, and its files do not answer. Of move `id`, or if that is empty,
 * of one of `vm_id` that has none yet. */
bool files_asked(struct partitions *ps, const char *id, const char *vm_id, struct wire_request *request);
/* Answers that. */
void files_not_answering(const struct record_storage *move, struct wire_request *request);

#endif
