#include "hostd/partition/state.h"

#include <string.h>

#include "base/ensure.h"

#define TO(state) (1u << (state))

static const struct {
    const char *name;
    unsigned successors;
    bool has_guest;
} states[STATE_COUNT] = {
    [STATE_NONE] = {"none", TO(STATE_STARTING) | TO(STATE_INCOMING), false},
    [STATE_STARTING] = {"starting", TO(STATE_RUNNING) | TO(STATE_STOPPING) | TO(STATE_STOPPED) | TO(STATE_FAILED),
        true},
    [STATE_RUNNING] = {"running", TO(STATE_OUTGOING) | TO(STATE_STOPPING) | TO(STATE_STOPPED) | TO(STATE_FAILED), true},
    [STATE_INCOMING] = {"incoming", TO(STATE_RUNNING) | TO(STATE_STOPPING) | TO(STATE_FAILED), true},
    [STATE_OUTGOING] = {"outgoing",
        TO(STATE_RUNNING) | TO(STATE_IN_DOUBT) | TO(STATE_STOPPING) | TO(STATE_STOPPED) | TO(STATE_FAILED), true},
    [STATE_IN_DOUBT] = {"in-doubt", TO(STATE_RUNNING) | TO(STATE_STOPPING) | TO(STATE_FAILED), true},
    [STATE_STOPPING] = {"stopping", TO(STATE_NONE), true},
    [STATE_STOPPED] = {"stopped", TO(STATE_NONE), false},
    [STATE_FAILED] = {"failed", TO(STATE_NONE), false},
};

bool state_may_follow(enum partition_state from, enum partition_state to)
{
    ENSURE((unsigned)from < STATE_COUNT && (unsigned)to < STATE_COUNT);
    return states[from].successors & TO(to);
}

const char *state_name(enum partition_state state)
{
    ENSURE((unsigned)state < STATE_COUNT);
    return states[state].name;
}

int state_parse(const char *name)
{
    for (int i = 0; i < STATE_COUNT; i++)
        if (strcmp(states[i].name, name) == 0)
            return i;
    return -1;
}

bool state_has_guest(enum partition_state state)
{
    ENSURE((unsigned)state < STATE_COUNT);
    return states[state].has_guest;
}
