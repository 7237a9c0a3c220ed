#include "controller/jobs/home.h"

#include <stdio.h>

#include "controller/state/effect.h"

#define SETTING_MAX (STATE_ID_MAX + sizeof "vm.home.")

static void setting_name(const char *vm_id, char out[static SETTING_MAX])
{
    snprintf(out, SETTING_MAX, "vm.home.%s", vm_id);
}

bool home_of(struct state *state, const char *vm_id, char out[static STATE_NAME_MAX])
{
    char name[SETTING_MAX];
    setting_name(vm_id, name);
    return state_setting(state, name, out, STATE_NAME_MAX) && out[0];
}

Drover__Effect *home_put(const char *vm_id, const char *host)
{
    char name[SETTING_MAX];
    setting_name(vm_id, name);
    return effect_setting_put(name, host);
}
