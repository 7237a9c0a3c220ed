#include "hostd/partition/files.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/ensure.h"

void files_free(struct files *files)
{
    for (size_t i = 0; i < files->path_count; i++)
        free(files->paths[i]);
    free(files);
}

static void files_work(uv_work_t *work)
{
    struct files *files = work->data;
    files->look(files);
}

static void files_done(uv_work_t *work, int status)
{
    struct files *files = work->data;
    (void)status; /* nobody cancels it */
    if (files->ps) {
        DL_DELETE(files->ps->files, files);
        files->seen(files);
    } else if (!files->action && !files->unasked) { /* an action has been answered */
        err_set(&files->err, ERR_UNAVAILABLE, "drover-hostd is stopping");
        wire_reply_error(files->request, &files->err);
    }
    files_free(files);
}

struct files *files_new(struct partitions *ps, struct wire_request *request, struct action *action)
{
    struct files *files = mem_zalloc(sizeof *files);
    files->work.data = files;
    files->ps = ps;
    files->request = request;
    files->action = action;
    files->directories = ps->env.options->storage_directories;
    return files;
}

void files_start(struct files *files, void (*look)(struct files *), void (*seen)(struct files *))
{
    files->look = look;
    files->seen = seen;
    DL_APPEND(files->ps->files, files);
    ENSURE(uv_queue_work(files->ps->env.loop, &files->work, files_work, files_done) == 0);
}

void files_drop(struct partitions *ps)
{
    struct files *files, *next;
    DL_FOREACH_SAFE(ps->files, files, next)
    {
        DL_DELETE(ps->files, files);
        files->ps = NULL;
    }
}

void files_not_answering(const struct record_storage *move, struct wire_request *request)
{
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "the storage of %.200s or %.200s does not answer", move->source, move->target);
    wire_reply_error(request, &err);
}

bool files_asked(struct partitions *ps, const char *id, const char *vm_id, struct wire_request *request)
{
    struct files *files;
    DL_FOREACH(ps->files, files)
    {
        if (files->action || strcmp(files->move.id, id) != 0 || (!id[0] && strcmp(files->vm_id, vm_id) != 0))
            continue;
        files_not_answering(&files->move, request);
        return true;
    }
    return false;
}
