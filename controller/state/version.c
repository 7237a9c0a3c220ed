#include "controller/state/version.h"

#include "controller/state/state.h"

#define VERSION_UNKNOWN (STATE_SCHEMA + 1u)

static uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* What a later program has filled in is left for later programs; what nobody has, every program refuses. */
static uint32_t of_unknown(const ProtobufCMessage *message)
{
    return message->n_unknown_fields ? VERSION_UNKNOWN : 1;
}

static uint32_t of_create(const Drover__JobCreate *create);

static uint32_t of_effect(const Drover__Effect *effect)
{
    switch (effect->change_case) {
    case DROVER__EFFECT__CHANGE_VM_INSERT:
    case DROVER__EFFECT__CHANGE_VM_DELETE:
    case DROVER__EFFECT__CHANGE_VM_GRANT:
    case DROVER__EFFECT__CHANGE_VM_RELEASE:
    case DROVER__EFFECT__CHANGE_VM_RENEW:
    case DROVER__EFFECT__CHANGE_HAND_OVER_ALLOW:
    case DROVER__EFFECT__CHANGE_HAND_OVER_TAKEN:
    case DROVER__EFFECT__CHANGE_HAND_OVER_CLEAR:
    case DROVER__EFFECT__CHANGE_HOST_INSERT:
    case DROVER__EFFECT__CHANGE_HOST_DELETE:
    case DROVER__EFFECT__CHANGE_HOST_FACTS_PUT:
    case DROVER__EFFECT__CHANGE_MEMBER_PUT:
    case DROVER__EFFECT__CHANGE_MEMBER_DELETE:
    case DROVER__EFFECT__CHANGE_SETTING_PUT:
    case DROVER__EFFECT__CHANGE_JOB_CANCEL:
        return 1;
    case DROVER__EFFECT__CHANGE_JOB_CREATE:
        return of_create(effect->job_create);
    case DROVER__EFFECT__CHANGE_VM_PIN:
        return 2;
    case DROVER__EFFECT__CHANGE_HOST_MAINTENANCE: /* some programs of version 2 do not know it */
        return VERSION_MAINTENANCE;
    case DROVER__EFFECT__CHANGE_VM_DISK_PUT:
        return VERSION_DISKS;
    case DROVER__EFFECT__CHANGE_VM_POLICY_PUT:
        return 4;
    case DROVER__EFFECT__CHANGE_HOST_LOST:
        return 5;
    default:
        return of_unknown(&effect->base);
    }
}

static uint32_t of_effects(Drover__Effect *const *effects, size_t count)
{
    uint32_t version = 1;
    for (size_t i = 0; i < count; i++)
        version = later(version, of_effect(effects[i]));
    return version;
}

/* Of the effects that the job's later steps will bring. A start is not among them: an older leader does not pin the VM,
 * which is no worse than a start before the upgrade. Nor are kinds that are not known here: whoever made one has said
 * what it needs, and who leads without knowing it waits. */
static uint32_t of_kind(Drover__JobKind kind)
{
    if (kind == DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE)
        return VERSION_DISKS;
    return kind == DROVER__JOB_KIND__JOB_HOST_EVACUATE ? VERSION_MAINTENANCE : 1;
}

static uint32_t of_data(const Drover__JobData *data)
{
    if (!data)
        return 1;
    bool disks = data->storage || data->disks || (data->options && data->options->with_storage);
    return later(of_effects(data->effects, data->n_effects), disks ? VERSION_DISKS : 1);
}

uint32_t version_of_job(Drover__JobKind kind, const Drover__JobData *data)
{
    return later(of_kind(kind), of_data(data));
}

static uint32_t of_create(const Drover__JobCreate *create)
{
    return later(of_effects(create->effects, create->n_effects), version_of_job(create->kind, create->data));
}

uint32_t version_of_command(const Drover__Command *command)
{
    switch (command->body_case) {
    case DROVER__COMMAND__BODY_JOB_CREATE:
        return of_create(command->job_create);
    case DROVER__COMMAND__BODY_JOB_UPDATE:
        return later(of_effects(command->job_update->effects, command->job_update->n_effects),
            of_data(command->job_update->data));
    case DROVER__COMMAND__BODY_JOB_CANCEL:
        return 1;
    case DROVER__COMMAND__BODY_CHANGE:
        return of_effects(command->change->effects, command->change->n_effects);
    default:
        return of_unknown(&command->base);
    }
}
