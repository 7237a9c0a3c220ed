#include "hostd/hypervisor/qemu/copy_look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/jsonfield.h"

static enum copy_job job_state(const char *status)
{
    static const struct {
        const char *status;
        enum copy_job job;
    } states[] = {
        {"created", COPY_JOB_RUNNING},
        {"running", COPY_JOB_RUNNING},
        {"paused", COPY_JOB_RUNNING},
        {"standby", COPY_JOB_RUNNING}, /* ready, and held for a moment: it takes no orders */
        {"ready", COPY_JOB_READY},
        {"concluded", COPY_JOB_CONCLUDED},
        {"null", COPY_JOB_NONE},
    };
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (strcmp(states[i].status, status) == 0)
            return states[i].job;
    return COPY_JOB_ENDING;
}

static void jobs_known(struct copy_look *look, const struct copy_names *names, const json_t *jobs)
{
    size_t i;
    const json_t *job;
    json_array_foreach(jobs, i, job)
    {
        if (strcmp(jsonfield_text(job, "id"), names->job) != 0)
            continue;
        snprintf(look->job_error, sizeof look->job_error, "%s", jsonfield_text(job, "error"));
        look->view.job = job_state(jsonfield_text(job, "status"));
        look->view.job_failed = look->job_error[0] != '\0';
        look->done_bytes = jsonfield_count(job, "current-progress");
        look->total_bytes = jsonfield_count(job, "total-progress");
    }
}

static void replace(char **field, const char *text)
{
    free(*field);
    *field = text[0] ? mem_strdup(text) : NULL;
}

static void devices_known(struct copy_look *look, const struct copy_names *names, const json_t *devices)
{
    size_t i;
    const json_t *device;
    json_array_foreach(devices, i, device)
    {
        if (strncmp(jsonfield_text(device, "qdev"), names->device, strlen(names->device)) != 0)
            continue;
        const json_t *inserted = json_object_get(device, "inserted"), *image = json_object_get(inserted, "image");
        snprintf(look->source_node, sizeof look->source_node, "%s", jsonfield_text(inserted, "node-name"));
        look->view.on_target = strcmp(look->source_node, names->node) == 0;
        if (look->view.on_target)
            continue;
        look->bytes = jsonfield_count(image, "virtual-size");
        replace(&look->backing, jsonfield_text(image, "full-backing-filename"));
        replace(&look->backing_format, jsonfield_text(image, "backing-filename-format"));
    }
}

/* Every file this disk was in is open under a name that begins alike: "disk0", and "disk0-" with what tells it apart.
 */
static void nodes_known(struct copy_look *look, const struct copy_names *names, const json_t *nodes)
{
    size_t i;
    const json_t *node;
    char prefix[32];
    int len = snprintf(prefix, sizeof prefix, "disk%zu", names->disk);
    bool child_found = false;
    look->old_node[0] = '\0';
    json_array_foreach(nodes, i, node)
    {
        const char *name = jsonfield_text(node, "node-name");
        if (strcmp(name, names->node) == 0) {
            look->view.target_open = true;
        } else if (strncmp(name, prefix, (size_t)len) == 0 && (name[len] == '\0' || name[len] == '-')) {
            bool child = strlen(name) > 5 && strcmp(name + strlen(name) - 5, "-file") == 0;
            if (!look->old_node[0] || (child_found && !child)) /* a format's node before the file below it */
                snprintf(look->old_node, sizeof look->old_node, "%s", name);
            child_found = child_found || child;
        }
    }
    look->view.old_open = look->old_node[0] != '\0';
}

static void status_known(struct copy_look *look, const struct copy_names *names, const json_t *status)
{
    (void)names;
    look->view.running = json_is_true(json_object_get(status, "running"));
}

const struct copy_query copy_looks[COPY_LOOKS] = {
    {"query-jobs", false, jobs_known},
    {"query-block", false, devices_known},
    {"query-named-block-nodes", true, nodes_known},
    {"query-status", false, status_known},
};

void copy_names_make(size_t disk, const char *id, struct copy_names *out)
{
    *out = (struct copy_names){.disk = disk};
    snprintf(out->node, sizeof out->node, "disk%zu-%.8s", disk, id);
    snprintf(out->job, sizeof out->job, "move-%.8s", id);
    snprintf(out->device, sizeof out->device, "/machine/peripheral/vdisk%zu/", disk);
}

void copy_look_begin(struct copy_look *look)
{
    look->view = (struct copy_view){0};
    look->job_error[0] = '\0';
}

void copy_look_clear(struct copy_look *look)
{
    free(look->backing);
    free(look->backing_format);
    *look = (struct copy_look){0};
}
